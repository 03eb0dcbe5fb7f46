"""`simroute calibrate ingest guidellm`: a report of guidellm as a run directory.

Imports calibration in the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.options import GpuOpt, ModelOpt, OutputOpt, SchemeOpt, SetOpt, TpOpt, VllmOpt


def guidellm(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The report, benchmarks.json.")],
    output: OutputOpt,
    gpu: GpuOpt,
    scheme: SchemeOpt,
    model: ModelOpt = None,
    tp: TpOpt = 1,
    vllm: VllmOpt = None,
    set_: SetOpt = None,
) -> None:
    """A report of guidellm as a run directory: a load phase a benchmark."""
    from simroute.calibration.ingest import guidellm as reader
    from simroute.cli.calibrate.ingest.options import described, write

    write(reader.read(source, described(gpu, scheme, model, tp, vllm, set_)), output)
