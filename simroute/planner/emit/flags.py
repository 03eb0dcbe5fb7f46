"""Engine settings as `vllm serve` takes them, and which checkpoint a quantization scheme wants.

The flags are those of vLLM 0.32, whose scheduler the simulator follows; docs/deploying.md says what older versions
lack. Imports errors and hardware's catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from simroute.errors import CatalogueError
from simroute.hardware import catalogue
from simroute.hardware.specs import ModelSpec, QuantScheme

VLLM_VERSION = "0.32.0"

_VALUES = {
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "block_size": "--block-size",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_cache_dtype": "--kv-cache-dtype",
    "policy": "--scheduling-policy",
}
_SWITCHES = {
    "enable_prefix_caching": "enable-prefix-caching",
    "enable_chunked_prefill": "enable-chunked-prefill",
    "async_scheduling": "async-scheduling",
}
"""Said in either direction: vLLM would otherwise decide by itself."""
_DEFAULTS: dict[str, tuple[str, Any]] = {
    "max_num_active_seqs": ("--max-num-active-seqs", None),
    "long_prefill_token_threshold": ("--long-prefill-token-threshold", 0),
    "long_prefill_token_threshold_adaptive": ("--long-prefill-token-threshold-adaptive", False),
    "scheduler_reserve_full_isl": ("--scheduler-reserve-full-isl", True),
    "watermark": ("--watermark", 0.0),
}
"""Newer flags, and vLLM's default, at which they are left out so that older versions start as well."""
_ELSEWHERE = {"num_gpu_blocks", "kv_source", "tensor_parallel_size"}
"""No flags: vLLM counts its KV blocks itself (`kv_source` says who counted them here); the pool has its own TP."""
_SIXTEEN_BIT = {"bf16": "bfloat16", "fp16": "float16"}
_BF16_CAPABILITY = 8.0


class Weights(NamedTuple):
    """What `vllm serve` is to load: `model`, or None where a checkpoint has to be chosen, and `words` for a reader."""

    model: str | None
    flags: tuple[str, ...]
    words: str


def weights(pool: Mapping[str, Any]) -> Weights:
    """The checkpoint of a pool and the flags that belong to it. No repository is guessed.

    A scheme that vLLM can apply while loading names the model's own 16-bit repository; every other scheme needs a
    checkpoint that was quantized before, which `checkpoint` of the pool may name.
    """
    scheme = catalogue.scheme(str(pool["quantization"]))
    model = _known(str(pool["model"]))
    of = published_name(str(pool["model"]))
    dtype = _dtype(scheme, str(pool["gpu"]))
    if given := pool.get("checkpoint"):
        return Weights(str(given), dtype, f"{given}, as the plan's input names it")
    if model is None or not model.hf_id:
        return Weights(None, dtype, f"the {scheme.name} weights that belong to {pool['model']}")
    if scheme.name == model.native_scheme or scheme.name in _SIXTEEN_BIT:
        return Weights(of, dtype, f"{of}, as published")
    if scheme.name == "fp8":
        words = f"{of}, quantized while loading; for a checkpoint that is fp8 already, leave --quantization out"
        return Weights(of, (*dtype, "--quantization", "fp8_per_tensor"), words)
    return Weights(None, dtype, f"a checkpoint of {of} that is quantized already: {scheme.description}")


def engine_flags(pool: Mapping[str, Any]) -> list[str]:
    """Every engine setting that was simulated, as flags with their values; see `unsaid` for what has none."""
    engine = pool.get("engine", {})
    flags = ["--tensor-parallel-size", str(pool["tensor_parallel"])]
    for name, flag in _VALUES.items():
        if engine.get(name) is not None:
            flags += [flag, f"{engine[name]}"]
    for name, flag in _SWITCHES.items():
        if name in engine:
            flags.append(_switch(flag, bool(engine[name])))
    for name, (flag, default) in _DEFAULTS.items():
        value = engine.get(name, default)
        if value == default:
            continue
        flags += [_switch(flag[2:], value)] if isinstance(default, bool) else [flag, f"{value}"]
    return flags


def unsaid(pool: Mapping[str, Any]) -> Iterator[str]:
    """Lines on simulated settings that are no flag, or are left at a default of vLLM."""
    engine = pool.get("engine", {})
    if blocks := engine.get("num_gpu_blocks"):
        tokens = f" ({blocks * engine['block_size']:,} tokens)" if engine.get("block_size") else ""
        source = f", {engine['kv_source']}" if engine.get("kv_source") else ""
        yield f"simulated with {blocks:,} KV blocks{tokens}{source}: compare 'GPU KV cache size' in vLLM's log"
    left = [name for name, (_, default) in _DEFAULTS.items() if engine.get(name, default) == default and name in engine]
    if left:
        yield f"at vLLM's defaults, as simulated: {', '.join(left)}"
    strange = sorted(set(engine) - {*_VALUES, *_SWITCHES, *_DEFAULTS, *_ELSEWHERE})
    if strange:
        yield f"simulated, but no flag of vLLM is known for: {', '.join(f'{n}={engine[n]}' for n in strange)}"


def _switch(name: str, on: bool) -> str:
    return f"--{name}" if on else f"--no-{name}"


def published_name(name: str) -> str:
    """The model's name on Hugging Face where the catalogue knows it, else `name`."""
    known = _known(name)
    return known.hf_id if known and known.hf_id else name


def _known(name: str) -> ModelSpec | None:
    """The model of the catalogue, or None for one of the reader's own."""
    if name.endswith(".json"):
        return None
    try:
        return catalogue.model(name)
    except CatalogueError:
        return None


def _dtype(scheme: QuantScheme, gpu_name: str) -> tuple[str, ...]:
    """--dtype where the scheme says it, or where the GPU has no bfloat16."""
    gpu = catalogue.gpu(gpu_name)
    if gpu.vendor == "nvidia" and gpu.compute_capability < _BF16_CAPABILITY:
        return ("--dtype", "float16")
    return ("--dtype", _SIXTEEN_BIT[scheme.name]) if scheme.name in _SIXTEEN_BIT else ()
