"""How many KV blocks vLLM gets, and its default batch limits.

    available      = ceil(total * gpu_memory_utilization) - weights - activations - non-torch - CUDA graphs
    num_gpu_blocks = available // (layers on rank * block_size * KV heads on rank * 2 * head_dim * dtype bytes)

The smallest count of all ranks holds for all. Memory in use before the engine starts is checked by vLLM against
the request, not subtracted from it. Source: vLLM's GPU worker (0.19 and 0.32). Imports only errors, units and
this room's specs, weights and footprint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simroute.errors import CapacityError, UsageError
from simroute.hardware.footprint import Layout, StageFootprint, stage_footprints
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme
from simroute.hardware.weights import check_shards, kv_heads_on_rank, tensor_parallel_sizes
from simroute.units import GIB

_KV_DTYPE_BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
_LARGE_GPU_GIB = 160
_SERVER_GPU_GIB = 70


@dataclass(frozen=True, slots=True)
class KvCapacity:
    """KV memory of one replica; bytes are those of its fullest rank.

    `num_gpu_blocks` includes vLLM's null block, as vLLM reports it. `source` is "measured" when the caller gave
    the block count, "formula" otherwise.
    """

    num_gpu_blocks: int
    block_size: int
    weight_bytes: float
    activation_bytes: float
    graph_bytes: float
    non_torch_bytes: float
    kv_bytes: float
    source: str

    @property
    def usable_tokens(self) -> int:
        """Tokens of context that fit: every block but the null block."""
        return (self.num_gpu_blocks - 1) * self.block_size


def engine_defaults(gpu: GpuSpec, usage: str = "api_server") -> tuple[int, int]:
    """vLLM's default (max_num_batched_tokens, max_num_seqs) on `gpu`, for "api_server" or "llm_class" use.

    Replicas behind a router are API servers. "llm_class" is vLLM's in-process `LLM`, with the
    larger batches that vLLM documents for offline jobs: for sizing those; nothing measured here rests on it.
    Large batches are the default from 70 GiB of memory on, but not on an A100. Raises UsageError on other uses.
    """
    if usage not in ("api_server", "llm_class"):
        raise UsageError(f"usage: must be api_server or llm_class, got {usage}")
    serving = usage == "api_server"
    if gpu.memory_gib >= _LARGE_GPU_GIB:
        return 16384, 1024
    if gpu.memory_gib >= _SERVER_GPU_GIB and not gpu.name.startswith("A100"):
        return (8192 if serving else 16384), 1024
    return (2048 if serving else 8192), 256


def kv_dtype_bytes(scheme: QuantScheme, kv_cache_dtype: str | None = None) -> int:
    """Bytes of one cached value; `kv_cache_dtype` in vLLM's names, None for the scheme's default."""
    name = kv_cache_dtype or scheme.kv_cache_dtype
    if name not in _KV_DTYPE_BYTES:
        raise UsageError(f"kv_cache_dtype: must be one of {', '.join(_KV_DTYPE_BYTES)}; got {name}")
    return _KV_DTYPE_BYTES[name]


def kv_token_bytes(
    model: ModelSpec, scheme: QuantScheme, tensor_parallel: int = 1, kv_cache_dtype: str | None = None
) -> int:
    """Bytes that one token's keys and values take in one layer on one rank."""
    heads = kv_heads_on_rank(model, tensor_parallel)
    return heads * 2 * model.head_dim * kv_dtype_bytes(scheme, kv_cache_dtype)


def kv_blocks(
    model: ModelSpec,
    scheme: QuantScheme,
    gpu: GpuSpec,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    block_size: int = 16,
    gpu_memory_utilization: float = 0.92,
    kv_cache_dtype: str | None = None,
    max_model_len: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    num_gpu_blocks_override: int | None = None,
    subtract_cuda_graphs: bool = True,
) -> KvCapacity:
    """KV capacity of one replica of `model` on `tensor_parallel * pipeline_parallel` GPUs.

    A measured `num_gpu_blocks_override` wins over the formula. Two arguments are for comparing the formula with
    engines that were measured, as benchmarks/kv_memory.py does, and no scenario sets them: `pipeline_parallel` (some
    of those are split into stages) and `subtract_cuda_graphs` (current vLLM does, 0.19, which they ran, did not).
    Raises CapacityError, with the numbers, when the weights or one request of `max_model_len` tokens do not
    fit; CatalogueError or UsageError for what vLLM refuses.
    """
    scheme.check_runs_on(gpu)
    check_shards(model, tensor_parallel, pipeline_parallel)
    if not 0 < gpu_memory_utilization <= 1:
        raise UsageError(f"gpu_memory_utilization: must be above 0 and at most 1, got {gpu_memory_utilization}")
    budget_bytes = math.ceil(gpu.memory_bytes * gpu_memory_utilization)
    needed_blocks = -(-max_model_len // block_size) + 1

    def tightest(tp: int) -> _Fit:
        layout = Layout(tp, pipeline_parallel, max_num_batched_tokens, max_num_seqs)
        block = block_size * kv_token_bytes(model, scheme, tp, kv_cache_dtype)
        stages = stage_footprints(model, scheme, layout, cuda_graphs=subtract_cuda_graphs)
        return min((_Fit(stage, budget_bytes, block) for stage in stages), key=lambda fit: fit.num_gpu_blocks)

    fit = tightest(tensor_parallel)
    if num_gpu_blocks_override is not None:
        return fit.capacity(block_size, num_gpu_blocks_override, "measured")
    if fit.num_gpu_blocks < needed_blocks:
        larger = [tp for tp in tensor_parallel_sizes(model) if tp > tensor_parallel]
        enough = next((tp for tp in larger if tightest(tp).num_gpu_blocks >= needed_blocks), None)
        what = f"{model.name} {scheme.name} on {tensor_parallel * pipeline_parallel} x {gpu.name}"
        raise CapacityError(f"{what}: {fit.refusal(gpu, max_model_len, block_size)}: {_remedy(enough)}")
    return fit.capacity(block_size, fit.num_gpu_blocks, "formula")


@dataclass(frozen=True, slots=True)
class _Fit:
    """One stage's footprint against the memory vLLM may use; `layer_block_bytes` is a KV block in one layer."""

    stage: StageFootprint
    budget_bytes: int
    layer_block_bytes: int

    @property
    def kv_bytes(self) -> float:
        return self.budget_bytes - self.stage.total_bytes

    @property
    def block_bytes(self) -> int:
        return self.layer_block_bytes * self.stage.layers

    @property
    def num_gpu_blocks(self) -> int:
        return max(0, int(self.kv_bytes // self.block_bytes))

    def capacity(self, block_size: int, num_gpu_blocks: int, source: str) -> KvCapacity:
        return KvCapacity(
            num_gpu_blocks=num_gpu_blocks,
            block_size=block_size,
            weight_bytes=self.stage.weight_bytes,
            activation_bytes=self.stage.activation_bytes,
            graph_bytes=self.stage.graph_bytes,
            non_torch_bytes=self.stage.non_torch_bytes,
            kv_bytes=self.kv_bytes if source == "formula" else num_gpu_blocks * self.block_bytes,
            source=source,
        )

    def refusal(self, gpu: GpuSpec, max_model_len: int, block_size: int) -> str:
        stage = self.stage
        parts = (
            f"weights {stage.weight_bytes / GIB:.2f}, activations {stage.activation_bytes / GIB:.2f}, "
            f"CUDA graphs {stage.graph_bytes / GIB:.2f}, non-torch {stage.non_torch_bytes / GIB:.2f}"
        )
        budget = f"of {self.budget_bytes / GIB:.2f} GiB usable a GPU (of {gpu.memory_gib:g}), {parts} GiB"
        if self.kv_bytes <= 0:
            return f"does not fit: {budget} are {-self.kv_bytes / GIB:.2f} GiB too many"
        needed = -(-max_model_len // block_size) * self.block_bytes
        return (
            f"does not fit: {budget} leave {self.kv_bytes / GIB:.2f} GiB for the KV cache, but one request of "
            f"max_model_len {max_model_len} needs {needed / GIB:.2f}; max_model_len "
            f"{max(0, self.num_gpu_blocks - 1) * block_size} would fit"
        )


def _remedy(tensor_parallel: int | None) -> str:
    more = f"set tensor_parallel {tensor_parallel}" if tensor_parallel else "take a GPU with more memory"
    return f"{more} or choose a scheme with smaller weights"
