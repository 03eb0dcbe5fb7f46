"""`simroute calibrate ingest layer-profile`: a calibration from a profile. Imports calibration in the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simroute.cli.calibrate.ingest.composed_options import KvOpt, ModelOpt, OutputOpt, RetrievedOpt, save
from simroute.cli.calibrate.ingest.options import GpuOpt, SchemeOpt, VllmOpt


def layer_profile(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A profile in LLMServingSim's layout: dense, per_sequence, attention.csv."),
    ],
    output: OutputOpt,
    gpu: GpuOpt,
    model: ModelOpt,
    scheme: SchemeOpt,
    kv_cache_dtype: KvOpt = None,
    vllm: VllmOpt = None,
    source: Annotated[str | None, typer.Option("--source", help="Whose profile it is, for the file.")] = None,
    retrieved: RetrievedOpt = None,
) -> None:
    """A profile of one layer's kernels added up to steps of a whole model, on one GPU."""
    from simroute.calibration.ingest.build import from_layer_profile, named_replica
    from simroute.calibration.ingest.described import NOT_RECORDED
    from simroute.calibration.ingest.layer_profile import PROJECT

    replica = named_replica(model, scheme, gpu, 1, kv_cache_dtype)
    save(from_layer_profile(folder, replica, source or PROJECT, vllm or NOT_RECORDED, retrieved), output)
