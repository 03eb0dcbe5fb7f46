"""`simroute check` and `simroute schema`: look at a scenario without running it. Imports scenario in the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScenarioArg = Annotated[Path, typer.Argument(metavar="SCENARIO", help="Scenario file (YAML).")]
TraceOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--trace", metavar="F", help="Replay this trace in place of the scenario's (repeat to merge several)."
    ),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a value, such as pools[0].replicas=4 (repeatable)."),
]


def check(scenario: ScenarioArg, trace: TraceOpt = None, set_: SetOpt = None) -> None:
    """Check a scenario: every error at once, each with file, line and column."""
    from simroute.scenario.loader import read

    loaded = read(scenario, overrides=set_ or (), traces=trace or ())
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    found = loaded.scenario
    replicas = sum(pool.replicas for pool in found.pools)
    typer.echo(
        f"{scenario}: ok: {len(found.traffic.traces)} trace(s), {len(found.pools)} pool(s) of {replicas} replica(s), "
        f"{len(found.policies)} policies"
    )


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from simroute.scenario.schema import schema_text

    typer.echo(schema_text(), nl=False)
