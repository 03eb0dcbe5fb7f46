"""Small kernel tables in aiconfigurator's layout, by formulas simple enough to add up by hand. All seconds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pandas as pd

H100 = "NVIDIA H100 80GB HBM3"
SIDES = (1024, 4096, 16384, 65536)
ROWS = (1, 8, 16, 17, 64, 128, 512, 1024, 4096, 16384)
KERNEL_S, BYTES_S, FLOPS = 4e-6, 3e12, 5e14
DECODE_FLOOR_S, DECODE_SEQ_S, CONTEXT_S = 8e-6, 1e-7, 1e-10
PREFILL_TOKEN_S, PAIR_S = 2e-9, 1e-11
REDUCE_S, REDUCE_BYTES_S = 5e-6, 2e11
EAGER_S = 20e-6
EXPERTS_S, EXPERT_TOKEN_S = 50e-6, 1e-7


def gemm_s(rows: float, out_features: float, in_features: float, weight_bytes: float = 2) -> float:
    """A product that reads its weights, then multiplies."""
    weights = out_features * in_features
    return KERNEL_S + weights * weight_bytes / BYTES_S + 2 * rows * weights / FLOPS


def write_tables(
    root: Path, gpu: str = "h100", device: str = H100, formats: Iterable[str] = ("bfloat16", "fp8")
) -> Path:
    """All tables of one GPU below `root`; returns `root`."""
    folder = root / gpu
    write(
        folder / "gemm/vllm/0.19.0/gemm_perf.parquet",
        device,
        [
            {"gemm_dtype": name, "m": m, "n": n, "k": k, "latency": gemm_s(m, n, k, 1 if name == "fp8" else 2)}
            for name, m, n, k in product(formats, ROWS, SIDES, SIDES)
            if (n, k) != (65536, 65536)
        ],
    )
    heads = [
        {"num_heads": 4 * kv, "num_key_value_heads": kv, "head_dim": 64}
        | {"kernel_source": "vllm_flash_attn", "kv_cache_dtype": "bfloat16"}
        for kv in (8, 4)
    ]
    write(
        folder / "attention/vllm/0.19.0/generation_attention_perf.parquet",
        device,
        [
            of | {"batch_size": b, "isl": 1, "step": step, "latency": decode_s(b, b * step)}
            for of, b, step in product(heads, (1, 8, 64, 512), (1, 1023, 16383, 131071))
        ],
    )
    write(
        folder / "attention/vllm/0.19.0/context_attention_perf.parquet",
        device,
        [
            of | {"batch_size": b, "isl": isl, "latency": prefill_s(b, isl)}
            for of, b, isl in product(heads, (1, 4, 16), (64, 512, 4096, 16384))
        ],
    )
    write(
        folder / "comm/vllm/0.19.0/custom_allreduce_perf.parquet",
        device,
        [
            {"num_gpus": 2, "backend": backend, "message_size": size, "latency": start_s + size / REDUCE_BYTES_S}
            for backend, start_s in (("vllm_graph", REDUCE_S), ("vllm_eager", EAGER_S))
            for size in (128, 1 << 16, 1 << 28)
        ],
    )
    return root


def decode_s(seqs: int, context_tokens: int) -> float:
    """Decode attention of one layer."""
    return DECODE_FLOOR_S + DECODE_SEQ_S * seqs + CONTEXT_S * context_tokens


def prefill_s(prompts: int, tokens: int) -> float:
    """Prefill attention of one layer."""
    all_tokens = prompts * tokens
    return DECODE_FLOOR_S + DECODE_SEQ_S + all_tokens * PREFILL_TOKEN_S + all_tokens * (tokens + 1) / 2 * PAIR_S


def write_experts(root: Path, gpu: str = "h100", device: str = H100) -> None:
    """Fused experts of Qwen3-30B-A3B's shape."""
    shape = {"hidden_size": 2048, "inter_size": 768, "topk": 8, "num_experts": 128, "moe_tp_size": 1, "moe_ep_size": 1}
    write(
        root / gpu / "moe/vllm/0.19.0/moe_perf.parquet",
        device,
        [
            {"moe_dtype": "bfloat16", "kernel_source": "vllm_fused_moe", "num_tokens": tokens}
            | shape
            | {"distribution": "power_law_1.01", "latency": EXPERTS_S + EXPERT_TOKEN_S * tokens}
            for tokens in (1, 64, 1024, 16384)
        ],
    )


def write(path: Path, device: str, rows: list[dict[str, object]]) -> None:
    """One table; `latency` of the rows is in seconds, that of the file in ms."""
    path.parent.mkdir(parents=True, exist_ok=True)
    version = path.parent.name
    table = pd.DataFrame([{"framework": "VLLM", "version": version, "device": device} | row for row in rows])
    table["latency"] *= 1e3
    table.to_parquet(path)
