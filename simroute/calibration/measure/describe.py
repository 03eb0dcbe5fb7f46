"""The engine as it ran, as RunMeta: from what the plug-in tells, else from the server's own pages. Imports
calibration's `runs`, hardware and errors.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simroute.calibration.measure.client import Client
from simroute.calibration.runs import Host, RunMeta
from simroute.errors import CalibrationError, CatalogueError
from simroute.hardware import catalogue

_NEEDED = ("num_gpu_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_UNSAID = {"_name_or_path", "transformers_version"}
_SIXTEEN_BIT = {"torch.float16": "fp16", "float16": "fp16"}


@dataclass(frozen=True, slots=True)
class Names:
    """What the user calls things; None: as the engine says."""

    model: str | None = None
    gpu: str | None = None
    scheme: str | None = None


def describe(engine: Mapping[str, Any], names: Names, served: str, *, dummy_weights: bool) -> RunMeta:
    """The meta of a run, without phases and plan. `engine` is the engine of the plug-in's header, or `from_pages`.

    Raises CalibrationError when the engine did not tell its limits, or neither it nor `names` the GPU and the scheme.
    """
    missing = [name for name in _NEEDED if not engine.get(name)]
    if missing:
        raise CalibrationError(f"the engine did not tell its {', '.join(missing)}; its plug-in's log lines say why")
    gpu, scheme = names.gpu or gpu_name(str(engine.get("gpu") or "")), names.scheme or scheme_of(engine)
    if not gpu or not scheme:
        options = ["--gpu"] * (not gpu) + ["--scheme"] * (not scheme)
        raise CalibrationError(f"the server does not tell what it runs on: give {' and '.join(options)}")
    return RunMeta(
        gpu=gpu,
        driver=None if gpu == "cpu" else _driver(),
        vllm=str(engine.get("vllm", "unknown")),
        model=names.model or served.rstrip("/").rpartition("/")[2],
        hf_config={k: v for k, v in (engine.get("model_config") or {}).items() if k not in _UNSAID},
        scheme=scheme,
        tensor_parallel=engine.get("tensor_parallel", 1),
        engine_args={k: v for k, v in engine.items() if k not in {"model_config", "vllm", "gpu", "model"}},
        num_gpu_blocks=int(engine["num_gpu_blocks"]),
        block_size=int(engine["block_size"]),
        max_num_seqs=int(engine["max_num_seqs"]),
        max_num_batched_tokens=int(engine["max_num_batched_tokens"]),
        max_model_len=int(engine["max_model_len"]),
        async_scheduling=bool(engine.get("async_scheduling", True)),
        enable_prefix_caching=bool(engine.get("enable_prefix_caching", True)),
        dummy_weights=dummy_weights,
        host=Host(cpu=_cpu(), cores=os.cpu_count() or 1),
    )


async def from_pages(
    client: Client, max_num_seqs: int | None, max_num_batched_tokens: int | None, tensor_parallel: int = 1
) -> dict[str, Any]:
    """What /version, /v1/models and /metrics tell of an engine that has no plug-in; the limits they do not tell, and
    over how many GPUs it is split, are the user's. Raises CalibrationError when they are needed and not given.
    """
    if max_num_seqs is None or max_num_batched_tokens is None:
        raise CalibrationError(
            "without the plug-in's file (--trace-steps) the server does not tell its limits: "
            "give --max-num-seqs and --max-num-batched-tokens"
        )
    version, models, metrics = [(await client.get(path))[1] for path in ("/version", "/v1/models", "/metrics")]
    found = re.search(rb"vllm:cache_config_info\{(.*?)\}", metrics)
    cache = dict(_LABEL.findall(found[1].decode())) if found else {}
    return {
        "vllm": _json(version).get("version", "unknown"),
        "num_gpu_blocks": _whole(cache.get("num_gpu_blocks")),
        "block_size": _whole(cache.get("block_size")),
        "enable_prefix_caching": cache.get("enable_prefix_caching") != "False",
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "tensor_parallel": tensor_parallel,
        "max_model_len": (_json(models).get("data") or [{}])[0].get("max_model_len"),
    }


def gpu_name(told: str) -> str:
    """The catalogue's name of the GPU that a driver calls `told` ("NVIDIA H100 80GB HBM3"), else `told` itself."""
    words = told.split()
    for skip in (0, 1):
        for end in range(len(words), skip, -1):
            try:
                return catalogue.gpu(" ".join(words[skip:end])).name
            except CatalogueError:
                continue
    return told


def scheme_of(engine: Mapping[str, Any]) -> str:
    """The scheme's name in the catalogue, from the engine's dtype and its model's quantization_config; "": unknown."""
    config = (engine.get("model_config") or {}).get("quantization_config") or {}
    method = str(config.get("quant_method") or engine.get("quantization") or "").lower()
    if not method:
        return _SIXTEEN_BIT.get(str(engine["dtype"]), "bf16") if engine.get("dtype") else ""
    if method == "compressed-tensors":
        return _compressed(config)
    if method.startswith("awq"):
        return "awq-int4"
    if method.startswith("gptq"):
        return "gptq-int4" if config.get("bits", 4) == 4 else "w8a16"
    return "fp8" if "fp8" in method else method


def _compressed(config: Mapping[str, Any]) -> str:
    groups = list((config.get("config_groups") or {}).values())
    weights = (groups[0].get("weights") or {}) if groups else {}
    if weights.get("type") == "float":
        return "fp8" if weights.get("num_bits") == 8 else "nvfp4"
    if weights.get("num_bits") == 4:
        return "w4a16"
    return "w8a8-int8" if groups and groups[0].get("input_activations") else "w8a16"


def _json(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told[0] if told else None
