"""`simroute check` and `simroute schema`: look at a scenario without running it. Imports the library inside."""

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


def schema(
    plan: Annotated[bool, typer.Option("--plan", help="That of plan files, which simroute plan reads.")] = False,
) -> None:
    """Print the JSON Schema of scenario files, or of plan files, for editors."""
    from simroute.planner import plan_schema
    from simroute.scenario.schema import as_text, schema

    typer.echo(as_text(plan_schema.schema() if plan else schema()), nl=False)
