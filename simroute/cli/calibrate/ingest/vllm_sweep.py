"""`simroute calibrate ingest vllm-sweep`: results of `vllm bench sweep serve` as run directories.

Imports calibration in the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.options import GpuOpt, ModelOpt, OutputOpt, SchemeOpt, SetOpt, TpOpt, VllmOpt


def vllm_sweep(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that the sweep wrote.")],
    output: OutputOpt,
    gpu: GpuOpt,
    scheme: SchemeOpt,
    model: ModelOpt = None,
    tp: TpOpt = 1,
    vllm: VllmOpt = None,
    set_: SetOpt = None,
) -> None:
    """Results of `vllm bench sweep serve` as run directories, one for each server it started."""
    from simroute.calibration.ingest import vllm_sweep as reader
    from simroute.cli.calibrate.ingest.options import described, write

    for server, run in reader.read(source, described(gpu, scheme, model, tp, vllm, set_)).items():
        write(run, output / server)
