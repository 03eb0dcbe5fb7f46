"""The one place that decides which StepTimeModel stands for a (model, quantization, GPU, TP). Imports this room."""

from __future__ import annotations

from simroute.hardware.roofline import RooflineStepTime
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme
from simroute.hardware.steptime import StepTimeModel


def step_time_model(
    model: ModelSpec,
    scheme: QuantScheme,
    gpu: GpuSpec,
    tensor_parallel: int = 1,
    *,
    kv_cache_dtype: str | None = None,
    async_scheduling: bool = True,
) -> StepTimeModel:
    """The step-time model of one replica: the roofline estimate, marked `estimated`.

    This is the one place where a measured model will take precedence over the estimate: callers ask here and read
    `estimated`, so nothing else changes with the choice.
    Raises CatalogueError or UsageError for a combination that vLLM refuses.
    """
    return RooflineStepTime(
        model, scheme, gpu, tensor_parallel, kv_cache_dtype=kv_cache_dtype, async_scheduling=async_scheduling
    )
