"""The log of a vLLM served with `--enable-logging-iteration-details`: a line an iteration.

    ... Engine 000: Iteration(17): 0 context requests, 0 context tokens, 8 generation requests, 8 generation tokens,
    iteration elapsed time: 21.35 ms, GPU KV cache usage: 3.1%

The elapsed time is how long the engine waited for the model's output. That is the length of a step only without async
scheduling: with it, another step is being scheduled meanwhile, and the wait says little. Contexts are not logged: the
summed one is derived from the KV cache in use. What cannot be derived is left out and counted. What the log says of
the engine above its first iteration need not be said again. Imports ingest's other files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simroute.calibration.ingest.described import NOT_RECORDED, Described, Found, iteration_table, run_of
from simroute.calibration.ingest.files import read_text
from simroute.calibration.runs import Phase, Run
from simroute.errors import CalibrationError

_LINE = re.compile(
    r"(?:Engine (?P<engine>\d+): )?Iteration\((?P<index>\d+)\): "
    r"(?P<context_requests>\d+) context requests, (?P<context_tokens>\d+) context tokens, "
    r"(?P<generation_requests>\d+) generation requests, (?P<generation_tokens>\d+) generation tokens, "
    r"iteration elapsed time: (?P<elapsed_ms>[\d.]+) ms(?P<dummy> \(dummy\))?"
    r"(?:, \w+ KV cache usage: (?P<usage>[\d.]+)%)?"
)
_CACHE = re.compile(r"(\w+) KV cache size: ([\d,]+) tokens")
_VERSION = re.compile(r"LLM engine \(v([^\s)]+)\)")
_MODEL = re.compile(r"\bmodel='([^']+)'")
_SETTINGS = {
    "block_size": "block_size",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_model_len": "max_(?:seq|model)_len",
    "enable_prefix_caching": "enable_prefix_caching",
    "enable_chunked_prefill": "enable_chunked_prefill",
}
"""Settings of the engine, and what a log calls them."""
_BLOCK_SIZE = 16
_BLOCK_SIZES = {"CPU": 128}
"""vLLM's default elsewhere than above."""
_LOGGED_SHARE = 0.001
"""The KV cache in use is logged to so much of it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One line; `usage` is the share of the KV cache in use once the step is done."""

    index: int
    context_requests: int
    context_tokens: int
    generation_requests: int
    generation_tokens: int
    elapsed_s: float
    usage: float


def read(path: Path, engine: Described, *, synchronous: bool | None = None) -> Run:
    """The run of one log; `synchronous` says how the engine scheduled (None: as the log says).

    Raises CalibrationError for a log of async scheduling, of several engines or without what is needed.
    """
    text = read_text(path)
    head = text.partition("Iteration(")[0]
    if synchronous is None:
        synchronous = _said(head, "async_scheduling") is False
    if not synchronous:
        raise CalibrationError(
            f"{path}: under async scheduling (vLLM's default) the logged time is how long the engine waited, not how "
            "long the step took, so nothing can be fitted to it: serve with --no-async-scheduling (and say "
            "--no-async-scheduling here), or measure with `simroute calibrate measure`"
        )
    steps = list(_steps(path, text))
    engine, settings = _described(head, engine), _settings(head, engine.settings)
    rows = list(_rows(steps, settings.get("num_gpu_blocks", 0) - 1, settings["block_size"]))
    if not rows:
        raise CalibrationError(f"{path}: none of its {len(steps)} iterations can be used: log steady decoding too")
    phase = Phase(name="log", kind="sweep", start_s=0.0, end_s=rows[-1]["t_s"] + rows[-1]["service_s"])
    grain = settings.get("num_gpu_blocks", 0) * settings["block_size"] * _LOGGED_SHARE
    notes = [
        f"steps are from a log: their contexts are derived from the KV cache in use, which it tells to {grain:,.0f} "
        "tokens, and the time between steps is not in them",
        f"{path.name}: {len(steps) - len(rows)} of {len(steps)} iterations left out: contexts not known",
    ]
    if settings.get("enable_prefix_caching", True):
        notes.append("valid if no prompt hit the prefix cache")
    model = _MODEL.search(head)
    name = Path(model[1]).name if model else None
    found = Found([phase], iterations=iteration_table(rows), model=name, settings=settings, notes=notes)
    return run_of(str(path), engine, found)


def _said(head: str, name: str) -> int | bool | None:
    """What the beginning of a log says of a setting, as `'name': 8` or `name=True`; None where it does not."""
    found = re.search(rf"\b{name}'?\s*[=:]\s*(\d+|True|False)\b", head)
    if found is None:
        return None
    return int(found[1]) if found[1].isdigit() else found[1] == "True"


def _settings(head: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's settings: as `given`, else as logged."""
    said = {name: value for name, logged in _SETTINGS.items() if (value := _said(head, logged)) is not None}
    cache = _CACHE.search(head)
    default = _BLOCK_SIZES.get(cache[1] if cache else "", _BLOCK_SIZE)
    settings: dict[str, Any] = {"block_size": default, "async_scheduling": False, **said, **given}
    if cache and "num_gpu_blocks" not in settings:
        settings["num_gpu_blocks"] = int(cache[2].replace(",", "")) // settings["block_size"]
    return settings


def _described(head: str, engine: Described) -> Described:
    """The engine with the version and the GPUs that the log tells, where its owner did not."""
    version, ranks = _VERSION.search(head), _said(head, "tensor_parallel_size")
    if version and engine.vllm == NOT_RECORDED:
        engine = replace(engine, vllm=version[1])
    return replace(engine, tensor_parallel=ranks) if ranks and engine.tensor_parallel == 1 else engine


def _steps(path: Path, text: str) -> Iterator[_Step]:
    lines = [found for found in _LINE.finditer(text) if not found["dummy"]]
    if not lines:
        raise CalibrationError(f"{path}: no iterations: serve with --enable-logging-iteration-details")
    engines = {found["engine"] for found in lines}
    if len(engines) > 1:
        raise CalibrationError(f"{path}: lines of {len(engines)} engines: give the lines of one")
    if any(found["usage"] is None for found in lines):
        raise CalibrationError(f"{path}: no KV cache usage in its iterations: this vLLM is too old for its log to do")
    for found in lines:
        yield _Step(
            index=int(found["index"]),
            context_requests=int(found["context_requests"]),
            context_tokens=int(found["context_tokens"]),
            generation_requests=int(found["generation_requests"]),
            generation_tokens=int(found["generation_tokens"]),
            elapsed_s=float(found["elapsed_ms"]) * 1e-3,
            usage=float(found["usage"]) / 100,
        )


def _rows(steps: Sequence[_Step], usable_blocks: int, block_size: int) -> Iterator[dict[str, Any]]:
    """The steps whose batch can be derived, looking at the step before and after each.

    Those are: decoding alone, by the same requests as in the next step (nobody finished, which would have freed
    blocks); or the first chunk of one prompt beside decoding. On the run's clock they follow each other at once: what
    is left out, as what lies between steps, is no part of the next one.
    """
    at_s = 0.0
    for before, step, after in zip([None, *steps], steps, [*steps[1:], None], strict=False):
        if after is None or after.index != step.index + 1 or step.elapsed_s <= 0:
            continue
        if step.generation_tokens != step.generation_requests:  # drafts, or a prompt computed again
            continue
        alone = not step.context_requests
        fresh = before is not None and before.index == step.index - 1 and not before.context_requests
        first_chunk = step.context_requests == 1 and fresh
        joined = after.context_requests + after.generation_requests
        if not (alone or first_chunk) or joined < step.context_requests + step.generation_requests:
            continue
        yield _row(step, at_s, usable_blocks, block_size, ends=not after.context_requests)
        at_s += step.elapsed_s


def _row(step: _Step, at_s: float, usable_blocks: int, block_size: int, *, ends: bool) -> dict[str, Any]:
    n, seqs = step.context_tokens, step.generation_requests
    blocks = round(step.usage * usable_blocks)
    # Every request's last block is half full on average.
    held = blocks * block_size - (seqs + step.context_requests) * block_size // 2
    return {
        "phase": 0,
        "t_s": at_s,
        "service_s": step.elapsed_s,
        "prefill_seqs": step.context_requests,
        "prefill_tokens": n,
        "prefill_pairs": n * (n + 1) // 2,
        "decode_seqs": seqs,
        "decode_context_tokens": max(held - n, seqs) if seqs else 0,
        "sampled_seqs": seqs + (step.context_requests if ends else 0),
        "kv_blocks_used": blocks,
        "running": seqs + step.context_requests,
    }
