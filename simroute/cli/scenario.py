"""`simroute check` and `simroute schema`: look at a scenario without running it; what all commands on one share.

Imports the library inside.
"""

from __future__ import annotations

from collections.abc import Iterable
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
SeedOpt = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Seed to use in place of the file's.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", help="No progress, no warnings, no tables.")]
ExactOpt = Annotated[bool, typer.Option("--exact", help="Run engines step by step: same times, slower.")]


def warn(lines: Iterable[str]) -> None:
    """Each line as a warning, on stderr."""
    for line in lines:
        typer.echo(f"warning: {line}", err=True)


def check(scenario: ScenarioArg, trace: TraceOpt = None, set_: SetOpt = None) -> None:
    """Check a scenario: every error at once, each with file, line and column."""
    from simroute.scenario.loader import read

    loaded = read(scenario, overrides=set_ or (), traces=trace or ())
    warn(loaded.warnings)
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
    from simroute.planner.fleets import schema as plan_schema
    from simroute.scenario.schema import as_text, schema

    typer.echo(as_text(plan_schema.schema() if plan else schema()), nl=False)
