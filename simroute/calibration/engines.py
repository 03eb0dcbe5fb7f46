"""The engine behind measured runs: the same one in all of them, and what its settings say to a calibration.

Imports errors, hardware and this room's runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from simroute.calibration.runs import Run, RunMeta
from simroute.errors import CalibrationError, CatalogueError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Memory

DEFAULT_GPU_MEMORY_UTILIZATION = 0.92
"""vLLM's own, where a run does not state it."""
LARGEST_DEFAULT_GRAPH = 512
"""vLLM captures no CUDA graph for more tokens unless told to (nor for more than twice `max_num_seqs`)."""


def check_same(runs: Sequence[Run]) -> None:
    """Raise CalibrationError, naming two runs, when they are of different engines."""
    first = runs[0]
    ours = identity(first.meta)
    for run in runs[1:]:
        theirs = identity(run.meta)
        differences = [f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
        if differences:
            raise CalibrationError(
                f"{first.name} and {run.name} are of different engines: {', '.join(differences)}: fit each by itself"
            )


def identity(meta: RunMeta) -> dict[str, Any]:
    """What makes a calibration one of this engine: the fields of `Calibration`, in the catalogue's names."""
    return {
        "model": _known(meta.model, lambda name: catalogue.model(name).name),
        "scheme": _known(meta.scheme, lambda name: catalogue.scheme(name).name),
        "gpu": _known(meta.gpu, lambda name: catalogue.gpu(name).name),
        "tensor_parallel": meta.tensor_parallel,
        "kv_cache_dtype": str(_given(meta).get("kv_cache_dtype") or "auto"),
        "vllm": meta.vllm,
        "async_scheduling": meta.async_scheduling,
    }


def memory_of(meta: RunMeta) -> Memory:
    """The KV cache that the engine reported. Raises CalibrationError for one that vLLM refuses."""
    share = _given(meta).get("gpu_memory_utilization", DEFAULT_GPU_MEMORY_UTILIZATION)
    names = ("num_gpu_blocks", "block_size", "max_model_len", "max_num_batched_tokens", "max_num_seqs")
    try:
        return Memory(gpu_memory_utilization=share, **{name: getattr(meta, name) for name in names})
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{first['msg'][:1].lower()}{first['msg'][1:]}, got {first['input']!r}"
        raise CalibrationError(f"meta.json: {'.'.join(map(str, first['loc']))}: {said}") from None


def graph_sizes_of(meta: RunMeta) -> tuple[tuple[int, ...], ...]:
    """The lists of CUDA-graph sizes that the engine may have captured: as told, or vLLM's default; none if eager.

    Source of the default: vLLM's configuration (0.19 to 0.33).
    """
    given = _given(meta)
    if given.get("enforce_eager") in (True, "true", "True"):
        return ()
    compilation = given.get("compilation_config")
    nested = compilation if isinstance(compilation, Mapping) else {}
    told = given.get("cudagraph_capture_sizes", nested.get("cudagraph_capture_sizes"))
    if isinstance(told, Sequence) and not isinstance(told, str):
        return (tuple(sorted({int(size) for size in told})),) if told else ()
    largest = min(2 * meta.max_num_seqs, LARGEST_DEFAULT_GRAPH)
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, LARGEST_DEFAULT_GRAPH + 1, 16))
    return (tuple(size for size in sizes if size <= largest),)


def _given(meta: RunMeta) -> dict[str, Any]:
    """The engine's arguments under vLLM's names with underscores."""
    return {name.lstrip("-").replace("-", "_"): value for name, value in meta.engine_args.items()}


def _known(name: str, look_up: Callable[[str], str]) -> str:
    """The catalogue's name of the same thing; a name that it does not know stands for itself."""
    try:
        return look_up(name)
    except CatalogueError:
        return name
