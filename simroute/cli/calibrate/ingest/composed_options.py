"""What the commands share that compose a calibration of kernels. Imports calibration in the functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simroute.hardware.calibration import Calibration

OutputOpt = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="PATH", help="Calibration to write: a .yaml file, or a folder of calibrations."
    ),
]
ModelOpt = Annotated[str, typer.Option("--model", help="Model, by its catalogue name, or a config.json.")]
KvOpt = Annotated[
    str | None, typer.Option("--kv-cache-dtype", help="Type of the KV cache, in vLLM's names (default: the scheme's).")
]
RetrievedOpt = Annotated[str | None, typer.Option("--retrieved", metavar="DATE", help="Day on which it was read.")]


def save(calibration: Calibration, output: Path) -> None:
    """Write to `output`, or to the calibration's place in that folder, and say what was written."""
    from simroute.hardware.calibration_file import calibration_path, save_calibration

    path = output
    if output.suffix not in (".yaml", ".yml"):
        names = (calibration.model, calibration.scheme, calibration.gpu, calibration.tensor_parallel)
        path = calibration_path(output, *names, calibration.kv_cache_dtype)
    save_calibration(calibration, path)
    error = calibration.error
    typer.echo(
        f"written: {path} ({calibration.basis}; its steps reproduced to {error.median:.1%}, 90 % to {error.p90:.1%})"
    )
    for note in calibration.notes:
        typer.echo(f"note: {note}", err=True)
