"""`simroute calibrate`: measure an engine, fit step times to what was measured, and see how well they hold.

One file a command; each imports what it needs when it runs.
"""

from __future__ import annotations

import typer

from simroute.cli.calibrate import fitting, ingest, listing, measure, validate

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fit step times to measured vLLM runs, and see how well they hold.",
)
app.command()(measure.measure)
app.command()(validate.validate)
app.command("fit")(fitting.fit)
app.command("list")(listing.list_calibrations)
app.add_typer(ingest.app, name="ingest")
