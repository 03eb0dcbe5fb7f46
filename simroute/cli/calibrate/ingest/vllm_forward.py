"""`simroute calibrate ingest vllm-forward`: results of `vllm bench forward` as a run directory.

Imports calibration in the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.options import GpuOpt, ModelOpt, OutputOpt, SchemeOpt, SetOpt, TpOpt, VllmOpt


def vllm_forward(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="JSON written with --output-json.")],
    output: OutputOpt,
    gpu: GpuOpt,
    scheme: SchemeOpt,
    model: ModelOpt = None,
    tp: TpOpt = 1,
    vllm: VllmOpt = None,
    set_: SetOpt = None,
) -> None:
    """Results of `vllm bench forward` (0.33) as a run directory: an iteration a case."""
    from simroute.calibration.ingest import vllm_forward as reader
    from simroute.cli.calibrate.ingest.options import described, write

    write(reader.read(source, described(gpu, scheme, model, tp, vllm, set_)), output)
