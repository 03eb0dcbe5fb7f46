"""`simroute calibrate ingest`: what others measured, as run directories or calibrations."""

from __future__ import annotations

import typer

from simroute.cli.calibrate.ingest import iteration_log, layer_profile, op_tables, results

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Turn what others measured into run directories, or into calibrations.",
)
for _name, _help in results.FORMATS.items():
    app.command(_name, help=_help)(results.command_for(_name))
app.command("iteration-log")(iteration_log.iteration_log)
app.command("op-tables")(op_tables.op_tables)
app.command("layer-profile")(layer_profile.layer_profile)
