"""`simroute calibrate ingest iteration-log`: a server's log of iterations as a run directory.

Imports calibration in the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.options import GpuOpt, ModelOpt, OutputOpt, SchemeOpt, SetOpt, TpOpt, VllmOpt


def iteration_log(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="Log of a vLLM served with --enable-logging-iteration-details.")
    ],
    output: OutputOpt,
    gpu: GpuOpt,
    scheme: SchemeOpt,
    model: ModelOpt = None,
    tp: TpOpt = 1,
    vllm: VllmOpt = None,
    set_: SetOpt = None,
    async_scheduling: Annotated[
        bool | None,
        typer.Option(
            "--async-scheduling/--no-async-scheduling", help="How the engine scheduled, where the log does not say."
        ),
    ] = None,
) -> None:
    """A server's log of its iterations as a run directory: steps to fit, without async scheduling only."""
    from simroute.calibration.ingest import iteration_log as reader
    from simroute.cli.calibrate.ingest.options import described, write

    synchronous = None if async_scheduling is None else not async_scheduling
    write({output: reader.read(source, described(gpu, scheme, model, tp, vllm, set_), synchronous=synchronous)})
