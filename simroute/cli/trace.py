"""`simroute trace`: look at, convert, make up and scale traces. Imports workload and report in the commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simroute.errors import ScenarioError, UsageError

if TYPE_CHECKING:
    from simroute.workload.synth import MixSpec
    from simroute.workload.trace import Trace

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at, convert, make up and scale traces.")

InArg = Annotated[Path, typer.Argument(metavar="IN", help="Trace file of any known format.")]
OutArg = Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .csv, .jsonl (each also .gz) or .parquet.")]
FormatOpt = Annotated[
    str | None, typer.Option("--format", metavar="F", help="Format of the input (left out: found by content).")
]
SeedOpt = Annotated[int, typer.Option(min=0, help="Seed for a format that is drawn from (servegen).")]


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Trace file of any known format.")],
    format: FormatOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print the statistics as JSON.")] = False,
) -> None:
    """Draw arrival rate, lengths, prefix reuse and classes of a trace."""
    from simroute.workload.formats import read_trace
    from simroute.workload.inspect import inspect as statistics

    stats = statistics(read_trace(file, format))
    if json:
        from json import dumps

        _note(stats.notes)
        typer.echo(dumps(stats.to_dict(), indent=2))
        return
    from rich.console import Console

    from simroute.report.trace_view import show

    show(stats, Console())


@app.command()
def convert(source: InArg, out: OutArg, format: FormatOpt = None, seed: SeedOpt = 0) -> None:
    """Write a trace in simroute's own schema, as CSV, JSON lines or Parquet."""
    from simroute.workload.formats import read_trace

    _write(read_trace(source, format, seed=seed), out)


@app.command()
def synth(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Specification of the trace (YAML).")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="File to write.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Seed to use in place of the specification's own.")] = None,
) -> None:
    """Make up a trace from a specification: the same specification and seed give the same trace."""
    from simroute.workload.synth import synthesize

    _write(synthesize(_spec(spec), seed), out)


@app.command()
def scale(
    source: InArg,
    out: OutArg,
    rate: Annotated[float, typer.Option(metavar="K", help="Arrivals K times as fast.")] = 1.0,
    input: Annotated[float, typer.Option("--input", metavar="K", help="Prompts K times as long.")] = 1.0,
    output: Annotated[float, typer.Option("--output", metavar="K", help="Answers K times as long.")] = 1.0,
    head: Annotated[int | None, typer.Option(metavar="N", help="Only the first N requests.")] = None,
    window: Annotated[
        str | None, typer.Option(metavar="START:STOP", help="Only arrivals in these seconds of the file; starts at 0.")
    ] = None,
    format: FormatOpt = None,
    seed: SeedOpt = 0,
) -> None:
    """Change rate and lengths of a trace, or cut a piece out of it (the cut comes first)."""
    from simroute.workload.formats import read_trace

    trace = read_trace(source, format, window_s=None if window is None else _seconds(window), seed=seed)
    if head is not None:
        trace = trace.head(head)
    _write(trace.scaled(rate, input, output), out)


def _seconds(window: str) -> tuple[float, float]:
    """START:STOP as seconds; what is left out is the trace's beginning or end."""
    start, colon, stop = window.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(start or 0), float(stop or "inf")
    except ValueError:
        raise UsageError(f"--window {window}: must be START:STOP in seconds, such as 3600:7200") from None


def _write(trace: Trace, out: Path) -> None:
    from simroute.workload.formats import write_trace

    _note(trace.notes)
    write_trace(trace, out)
    typer.echo(f"{out}: {len(trace):,} requests in {trace.duration_s:,.0f} s, fingerprint {trace.fingerprint()[:16]}")


def _note(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _spec(path: Path) -> MixSpec:
    """The checked specification. Raises ScenarioError with every problem found, each with file, line and column."""
    from pydantic import ValidationError

    from simroute.scenario.source import Problem, Source
    from simroute.workload.synth import MixSpec

    source = Source.read(path)
    try:
        return MixSpec.model_validate(source.data)
    except ValidationError as error:
        problems = [Problem(_keys(e["loc"], source.data), e["msg"]) for e in error.errors(include_url=False)]
        raise ScenarioError([source.locate(problem) for problem in problems]) from None


def _keys(location: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """A pydantic location as keys of the file: without the `kind` by which pydantic names the choice it took."""
    keys: tuple[int | str, ...] = ()
    for step in location:
        if isinstance(data, dict) and step not in data and data.get("kind") == step:
            continue
        keys += (step,)
        inside = isinstance(data, dict) and step in data
        data = data[step] if inside or (isinstance(data, list) and isinstance(step, int)) else None
    return keys
