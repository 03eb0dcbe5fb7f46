"""What the `ingest` commands share: the engine's options and writing the run. Imports calibration in the functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simroute.calibration.ingest.described import Described
    from simroute.calibration.runs import Run

OutputOpt = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Run directory to write.")]
GpuOpt = Annotated[str, typer.Option("--gpu", help="GPU that served, by its catalogue name.")]
SchemeOpt = Annotated[str, typer.Option("--scheme", help="Quantization scheme that was served.")]
ModelOpt = Annotated[str | None, typer.Option("--model", help="Model that was served (default: what the file says).")]
TpOpt = Annotated[int, typer.Option("--tp", min=1, help="Tensor parallel size.")]
VllmOpt = Annotated[str | None, typer.Option("--vllm", metavar="VERSION", help="Version of vLLM that served.")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An engine setting, as num_gpu_blocks=2588 (repeatable)."),
]


def described(
    gpu: str, scheme: str, model: str | None, tp: int, vllm: str | None, settings: Sequence[str] | None
) -> Described:
    """The engine as the options describe it. Raises UsageError for a setting that no engine has."""
    from simroute.calibration.ingest.described import NOT_RECORDED, Described
    from simroute.calibration.replay import parsed_overrides

    return Described(
        gpu=gpu,
        scheme=scheme,
        model=model or NOT_RECORDED,
        vllm=vllm or NOT_RECORDED,
        tensor_parallel=tp,
        settings=parsed_overrides(settings or ()),
    )


def write(runs: Mapping[Path, Run]) -> None:
    """Write each run to its directory and say what it holds.

    Raises UsageError, and writes none, where `measure` wrote one: that took a machine's time.
    """
    from simroute.calibration.runs import META, read_meta
    from simroute.errors import UsageError

    for directory in runs:
        if (directory / META).exists() and read_meta(directory / META).plan:
            raise UsageError(f"{directory}: holds a run of `simroute calibrate measure`: choose another -o")
    for directory, run in runs.items():
        _write(run, directory)


def _write(run: Run, directory: Path) -> None:
    from simroute.calibration.runs import write_run

    write_run(run, directory)
    held = [f"{len(run.requests):,} requests"] * bool(len(run.requests))
    held += [f"{len(run.iterations):,} iterations"] * bool(len(run.iterations))
    phases = len(run.meta.phases)
    typer.echo(f"written: {directory}/ ({', '.join(held)} in {phases} phase{'s' * (phases != 1)})")
    for note in run.meta.notes:
        typer.echo(f"note: {note}", err=True)
