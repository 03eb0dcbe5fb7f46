"""`simroute calibrate validate`: replay measured load and see how well a calibration predicts it.

Imports the library in the command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simroute.cli.assertions import JunitOpt, enforce, parse, ready
from simroute.cli.calibrate.ingest.options import SetOpt

if TYPE_CHECKING:
    from simroute.calibration.runs import Run
    from simroute.calibration.validate import Validation
    from simroute.hardware.calibration import Calibration

DOCUMENT, PAGE = "validation.json", "validation.html"


CalibrationArg = Annotated[Path, typer.Argument(metavar="CALIBRATION", help="Calibration file (YAML).")]
RunArg = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory, or a detailed result of `vllm bench serve`.")
]
PhaseOpt = Annotated[
    list[str] | None, typer.Option("--phase", metavar="NAME", help="Only this load phase (repeatable).")
]
LoadOpt = Annotated[
    list[float] | None,
    typer.Option("--load", metavar="F", help="Only the load at this fraction of capacity, as 0.6 (repeatable)."),
]
AssertOpt = Annotated[
    list[str] | None,
    typer.Option("--assert", metavar="A", help="Fail unless this holds, as 'tpot_mean_ape < 5%' (repeatable)."),
]
ReplicatesOpt = Annotated[
    int, typer.Option("--replicates", metavar="N", min=0, max=10_000, help="Replays for the intervals.")
]
OutputOpt = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Write validation.json and validation.html.")
]


def validate(
    calibration: CalibrationArg,
    run: RunArg,
    phase: PhaseOpt = None,
    load: LoadOpt = None,
    set_: SetOpt = None,
    assert_: AssertOpt = None,
    junit: JunitOpt = None,
    replicates: ReplicatesOpt = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the replicates.")] = 0,
    output: OutputOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print validation.json to stdout, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no tables.")] = False,
) -> None:
    """Replay a run's requests through the simulator: measured and predicted TTFT, TPOT, ITL, E2E and throughput.

    An assertion must hold for every load phase, or for one: 'load-0.6: ttft_p50_ape < 10%'.
    """
    from simroute.calibration.replay import parsed_overrides
    from simroute.calibration.runs import ITERATIONS
    from simroute.calibration.validate import chosen_phases, metrics
    from simroute.calibration.validate import validate as compare
    from simroute.cli.progress import shown_progress
    from simroute.hardware.calibration_file import file_sha256, load_calibration
    from simroute.results.store import prepare

    loaded = load_calibration(calibration)
    overrides = parsed_overrides(set_ or ())
    measured = _run(run, loaded, overrides)
    phases = chosen_phases(measured, phase or (), load or ())
    names = [each.name for each in phases]
    examples = "'tpot_mean_ape < 5%' or 'load-0.6: ttft_p50_ape < 10%'"
    assertions = [parse(text, names, metrics(), what="load phase", examples=examples) for text in assert_ or ()]
    if output:
        prepare(output)
    ready(junit)
    sha256 = file_sha256(run / ITERATIONS) if run.is_dir() else None
    with shown_progress(names, hidden=quiet or json) as progress:
        validation = compare(
            loaded,
            measured,
            phases,
            overrides=overrides,
            replicates=replicates,
            seed=seed,
            sha256=sha256,
            progress=progress,
        )
    if output:
        _store(output, validation)
    _show(validation, json=json, quiet=quiet, output=output)
    enforce(assertions, validation.document["phases"], suite="simroute calibrate validate", junit=junit)


def _run(path: Path, calibration: Calibration, overrides: dict[str, Any]) -> Run:
    """The run directory at `path`; a file is taken as a benchmark of the engine that the calibration is for."""
    from simroute.calibration.runs import read_run

    if not path.is_file():
        return read_run(path)
    from simroute.calibration.ingest import vllm_serve
    from simroute.calibration.ingest.described import Described

    memory = calibration.memory
    known = {} if memory is None else memory.model_dump(exclude_none=True, exclude={"gpu_memory_utilization"})
    engine = Described(
        gpu=calibration.gpu,
        scheme=calibration.scheme,
        model=calibration.model,
        tensor_parallel=calibration.tensor_parallel,
        settings=known | {"async_scheduling": calibration.async_scheduling, **overrides},
    )
    return vllm_serve.read(path, engine)


def _show(validation: Validation, *, json: bool, quiet: bool, output: Path | None) -> None:
    if json:
        from simroute.results.store import json_text

        typer.echo(json_text(validation.document), nl=False)
        return
    if quiet:
        return
    from simroute.report.validation import print_validation

    print_validation(validation.document, sys.stdout)
    if output:
        typer.echo(f"\nwritten: {output}/ ({PAGE}, {DOCUMENT})")


def _store(directory: Path, validation: Validation) -> None:
    from simroute.report.validation_page import Pair, render
    from simroute.results.store import json_text, write_text

    pairs = {name: Pair(each.measured.run, each.predicted) for name, each in validation.phases.items()}
    write_text(directory / DOCUMENT, json_text(validation.document))
    write_text(directory / PAGE, render(validation.document, pairs))
