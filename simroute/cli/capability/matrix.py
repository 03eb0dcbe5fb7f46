"""`simroute capability matrix`: simulate each variant alone, write the matrix. Imports the library in the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simroute.calibration.capability.candidates import Sources
    from simroute.calibration.capability.matrix import Known, Load

_MOST_LOAD = 3.0
LMEvalOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--lm-eval",
        metavar="MODEL:SCHEME=FILE",
        help="Results of lm-evaluation-harness for a variant (repeatable).",
    ),
]
TaskOpt = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="TASK=CLASS", help="Request class that a harness task stands for (repeatable)."),
]


def matrix(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SCENARIO|CALIBRATION...", help="Scenarios, calibration files or folders of these."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the matrix there (.json).")
    ] = None,
    load: Annotated[
        str, typer.Option("--load", metavar="L,...", help="Loads, as shares of what a replica keeps up with.")
    ] = "0.3,0.6,0.9",
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="INxOUT", help="Tokens in and out of a request (repeatable). [1024x256]"),
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option("--accuracy", metavar="FILE", help="Accuracies (.csv), or another matrix (.json) (repeatable)."),
    ] = None,
    lm_eval: LMEvalOpt = None,
    task: TaskOpt = None,
    requests: Annotated[int, typer.Option("--requests", min=100, max=1_000_000, help="Requests of each row.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the arrivals.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the matrix as JSON to stdout, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no warnings, no table.")] = False,
) -> None:
    """Simulate every variant alone at given loads; join latency, throughput, cost and accuracy in one matrix.

    A scenario can route on it: `quality: {matrix: matrix.json}`.
    """
    from simroute.calibration.capability.candidates import candidates_of
    from simroute.calibration.capability.matrix import capability_matrix
    from simroute.cli.progress import shown_progress
    from simroute.scenario.matrix import write_text

    _check_output(output)
    loads = _loads(load, shape or ["1024x256"])
    found = candidates_of(sources)
    known, notes = _known(found, accuracy or (), lm_eval or (), task or ())
    if not quiet:
        for note in notes:
            typer.echo(f"warning: {note}", err=True)
    with shown_progress(["rows"], hidden=quiet) as advance:

        def told(fractions: Sequence[float]) -> None:
            if advance:
                advance([sum(fractions) / len(fractions)])

        done = capability_matrix(found.candidates, loads, known, requests=requests, seed=seed, progress=told)
    text = done.model_dump_json(indent=2) + "\n"
    if output:
        write_text(output, text)
    if json:
        typer.echo(text, nl=False)
    elif not quiet:
        from simroute.report.capability import print_matrix

        print_matrix(done, sys.stdout, [f"written: {output}"] if output else [])


def _check_output(output: Path | None) -> None:
    from simroute.errors import UsageError
    from simroute.results.store import prepare

    if output is not None:
        if output.suffix.lower() != ".json":
            raise UsageError(f"-o {output}: a matrix is JSON: give a name that ends in .json")
        prepare(output.parent)


def _loads(load: str, shapes: Sequence[str]) -> list[Load]:
    """Every share with every shape."""
    from simroute.calibration.capability.matrix import Load
    from simroute.errors import UsageError

    try:
        shares = [float(part) for part in load.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0.0 < share <= _MOST_LOAD for share in shares):
        raise UsageError(f"--load {load}: must be shares above 0 and at most {_MOST_LOAD:g}, such as 0.3,0.6,0.9")
    lengths = []
    for shape in shapes:
        first, _, second = shape.lower().partition("x")
        if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
            raise UsageError(f"--shape {shape}: must be tokens in, x, tokens out, such as 1024x256")
        lengths.append((int(first), int(second)))
    return [Load(share, *each) for each in dict.fromkeys(lengths) for share in dict.fromkeys(shares)]


def _known(
    found: Sources, tables: Sequence[Path], lm_eval: Sequence[str], tasks: Sequence[str]
) -> tuple[Known, list[str]]:
    """What the scenarios and the files say of quality, and notes on what of it was left out."""
    from simroute.calibration.capability.lm_eval import lm_eval_rows
    from simroute.calibration.capability.matrix import Known
    from simroute.cli.capability.variant import variant_named
    from simroute.errors import UsageError
    from simroute.scenario.quality import Named, given_rows

    variants = [c.pool.variant for c in found.candidates]
    names = [Named(variant.model, variant.quantization) for variant in variants]
    matrices = [Path(s.quality.matrix) for s in found.scenarios if s.quality.matrix]
    given = [row for path in (*matrices, *tables) for row in given_rows(path, names)]
    classes = dict(_pair("--task", text, "TASK=CLASS") for text in tasks)
    notes: list[str] = []
    if classes and not lm_eval:
        raise UsageError("--task: says what tasks of --lm-eval stand for: give both")
    for text in lm_eval:
        name, file = _pair("--lm-eval", text, "MODEL:SCHEME=FILE")
        named = variant_named("--lm-eval", name, names)
        rows, left_out = lm_eval_rows(Path(file), *named, classes)
        given += rows
        notes += left_out
        if named not in names:
            notes.append(f"--lm-eval {text}: no such variant among the rows: not used")
    return Known(given, [a for s in found.scenarios for a in s.quality.assumed]), notes


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    from simroute.errors import UsageError

    first, equals, second = text.partition("=")
    if not equals or not first or not second:
        raise UsageError(f"{option} {text}: must be {form}")
    return first, second
