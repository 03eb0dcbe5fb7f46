"""`simroute calibrate ingest vllm-serve`: a result of `vllm bench serve` as a run directory.

Imports calibration in the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.options import GpuOpt, ModelOpt, OutputOpt, SchemeOpt, SetOpt, TpOpt, VllmOpt


def vllm_serve(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="JSON written with --save-result --save-detailed.")],
    output: OutputOpt,
    gpu: GpuOpt,
    scheme: SchemeOpt,
    model: ModelOpt = None,
    tp: TpOpt = 1,
    vllm: VllmOpt = None,
    set_: SetOpt = None,
) -> None:
    """A detailed result of `vllm bench serve` as a run directory: requests to validate on."""
    from simroute.calibration.ingest import vllm_serve as reader
    from simroute.cli.calibrate.ingest.options import described, write

    write(reader.read(source, described(gpu, scheme, model, tp, vllm, set_)), output)
