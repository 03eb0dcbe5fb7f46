"""`simroute calibrate ingest op-tables`: a calibration from kernel tables. Imports calibration in the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.composed_options import KvOpt, ModelOpt, OutputOpt, RetrievedOpt, save
from simroute.cli.calibrate.ingest.options import GpuOpt, SchemeOpt, TpOpt


def op_tables(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Tables in aiconfigurator's layout: one GPU's folder, or that above.")
    ],
    output: OutputOpt,
    gpu: GpuOpt,
    model: ModelOpt,
    scheme: SchemeOpt,
    tp: TpOpt = 1,
    kv_cache_dtype: KvOpt = None,
    vllm: Annotated[
        str | None, typer.Option("--vllm", metavar="VERSION", help="Version to compose for (default: the tables').")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Whose tables they are, for the file.")] = None,
    retrieved: RetrievedOpt = None,
) -> None:
    """Measured kernels added up to steps of a whole model: a calibration of a GPU that nobody needs to own.

    Products in int8 and int4, which vLLM's tables lack, are borrowed from the nearest kernels there are; the
    calibration is then marked proxy.
    """
    from simroute.calibration.ingest.build import from_op_tables, named_replica
    from simroute.calibration.ingest.op_tables import PROJECT

    replica = named_replica(model, scheme, gpu, tp, kv_cache_dtype)
    save(from_op_tables(folder, replica, source or PROJECT, retrieved, vllm), output)
