"""`simroute calibrate ingest vllm-serve|vllm-sweep|vllm-forward|guidellm`: results of benchmarks as run directories.

One command for every reader that needs no more than the file and its engine. Imports calibration in the command.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.options import (
    GpuOpt,
    ModelOpt,
    OutputOpt,
    SchemeOpt,
    SetOpt,
    TpOpt,
    VllmOpt,
    described,
    write,
)

FORMATS = {
    "vllm-serve": "A result of `vllm bench serve --save-result --save-detailed` as a run directory: requests to "
    "validate on.",
    "vllm-sweep": "The folder of `vllm bench sweep serve` as run directories, one for each server it started.",
    "vllm-forward": "Results of `vllm bench forward --output-json` (0.33) as a run directory: an iteration a case.",
    "guidellm": "A report of guidellm, benchmarks.json, as a run directory: a load phase a benchmark.",
}
"""Command to its help; the reader is the module of calibration.ingest of that name."""


def command_for(name: str) -> Callable[..., None]:
    """The command that reads the format `name`."""

    def ingest(
        source: Annotated[Path, typer.Argument(metavar="SOURCE", help="What the tool wrote.")],
        output: OutputOpt,
        gpu: GpuOpt,
        scheme: SchemeOpt,
        model: ModelOpt = None,
        tp: TpOpt = 1,
        vllm: VllmOpt = None,
        set_: SetOpt = None,
    ) -> None:
        reader = import_module(f"simroute.calibration.ingest.{name.replace('-', '_')}")
        found = reader.read(source, described(gpu, scheme, model, tp, vllm, set_))
        runs = found if isinstance(found, dict) else {"": found}
        write({output / server: run for server, run in runs.items()})

    return ingest
