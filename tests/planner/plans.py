"""A plan document as `simroute plan` writes it, made by hand: a mixed fleet, its frontier, and what qualifies it."""

from __future__ import annotations

import copy
import math
from typing import Any

ENGINE = {
    "num_gpu_blocks": 21_000,
    "block_size": 16,
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 256,
    "max_model_len": 16_384,
    "enable_prefix_caching": True,
    "enable_chunked_prefill": True,
    "policy": "fcfs",
    "long_prefill_token_threshold": 0,
    "long_prefill_token_threshold_adaptive": False,
    "scheduler_reserve_full_isl": True,
    "watermark": 0.0,
    "max_num_active_seqs": None,
    "async_scheduling": True,
    "gpu_memory_utilization": 0.92,
    "kv_cache_dtype": "auto",
    "kv_source": "formula",
}
SLO = {
    "chat": {
        "slo": {"ttft_s": 1.0, "tpot_s": 0.05, "e2e_s": None},
        "p99": {"ttft_s": 1.0, "tpot_s": 0.05, "e2e_s": None},
        "quality_floor": 0.7,
        "attainment": 0.99,
    },
    "code": {
        "slo": {"ttft_s": 2.0, "tpot_s": None, "e2e_s": 20.0},
        "p99": None,
        "quality_floor": 0.8,
        "attainment": 0.95,
    },
}


def pool(**changes: Any) -> dict[str, Any]:
    """Six L40S that answer most of the chat."""
    made = {
        "name": "small fp8",
        "model": "Llama-3.1-8B",
        "quantization": "fp8",
        "gpu": "L40S",
        "tensor_parallel": 1,
        "replicas": 6,
        "usd_per_hour": 1.861,
        "hf_id": "meta-llama/Llama-3.1-8B-Instruct",
        "price_source": "AWS on_demand, g6e.xlarge (2026-11-22)",
        "zones": ["zone-a"],
        "engine": dict(ENGINE),
        "basis": "composed",
        "calibration": {
            "file": "l40s/llama-3.1-8b/fp8.yaml",
            "vllm": "0.19.0",
            "error": {"median": 0.031, "p90": 0.084, "bias_sd": 0.06},
            "range": {
                "tokens": [1, 8192],
                "decode_seqs": [1, 256],
                "decode_context_tokens": [0, 229_376],
                "prefill_pairs": [0, 33_558_528],
            },
            "extrapolated": False,
        },
    }
    return copy.deepcopy(made | changes)


def big_pool(**changes: Any) -> dict[str, Any]:
    """Two replicas of a large model, which has to be quantized before it is served."""
    made = {
        "name": "large",
        "model": "Llama-3.3-70B",
        "quantization": "awq-int4",
        "gpu": "H100",
        "tensor_parallel": 2,
        "replicas": 2,
        "usd_per_hour": 6.58,
        "hf_id": "meta-llama/Llama-3.3-70B-Instruct",
        "engine": ENGINE | {"max_num_seqs": 128, "enable_prefix_caching": False, "async_scheduling": False},
        "basis": "estimated",
        "calibration": None,
    }
    return pool(**(made | changes))


def plan(
    pools: list[dict[str, Any]] | None = None,
    *,
    name: str | None = None,
    policy: str = "quant_aware",
    options: dict[str, Any] | None = None,
    ttft_p99_s: float | None = 0.81,
    quality: float | None = 0.807,
    violations: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """One candidate fleet with its headlines; the cost follows from its pools."""
    pools = [pool(), big_pool()] if pools is None else pools
    failed = violations or []
    fleet = " + ".join(f"{each['replicas']} x {each['name']}" for each in pools)
    made = {
        "id": name or f"{fleet}, {policy}",
        "pools": pools,
        "policy": {"name": policy, "label": policy, "options": options or {}},
        "cost_usd_per_month": sum(p["usd_per_hour"] * p["replicas"] for p in pools) * 730,
        "gpus": sum(p["tensor_parallel"] * p["replicas"] for p in pools),
        "headlines": {
            "ttft_p99_s": ttft_p99_s,
            "tpot_p99_s": None if ttft_p99_s is None else 0.0412,
            "e2e_p99_s": None if ttft_p99_s is None else 14.2 + ttft_p99_s,
            "slo_attainment": 0.9934 if not failed else 0.951,
            "quality_mean": quality,
            "below_floor_share": 0.0,
            "gpu_busy": 0.71,
            "goodput_rps": 11.6,
        },
        "stability": "STABLE" if ttft_p99_s is not None else "OVERLOADED",
        "meets": not failed,
        "violations": failed,
        "stage": "whole",
        "summary": None,
    }
    return copy.deepcopy(made | changes)


def violation(constraint: str, of: str | None, value: float | None, limit: float) -> dict[str, Any]:
    """A constraint that a plan breaks."""
    return {"constraint": constraint, "class": of, "value": value, "limit": limit}


def candidates() -> list[dict[str, Any]]:
    """Fleets around the best one: smaller ones are slower and fail, larger ones cost more."""
    made = []
    for small in range(3, 10):
        for large in (0, 1, 2, 3):
            pools = [pool(replicas=small), *([big_pool(replicas=large)] if large else [])]
            capacity = small + 2.5 * large
            ttft_s = None if capacity < 7 else 0.25 + 8.0 * math.exp(-0.6 * (capacity - 7))
            quality = 0.76 + 0.02 * min(large, 2) + 0.002 * small
            kept = (0.6, 0.93, 1.0, 1.0)[large]
            broken = []
            if kept < 0.99:
                broken.append(violation("quality_floor", "code", kept, 0.99))
            if ttft_s is None or ttft_s > 1.0:
                broken.append(violation("ttft_p99", "chat", ttft_s, 1.0))
            made.append(plan(pools, ttft_p99_s=ttft_s, quality=quality, violations=broken))
    return made


def frontier(evaluated: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other one beats in cost, p99 and quality together."""

    def key(each: dict[str, Any]) -> tuple[float, float, float]:
        head = each["headlines"]
        return each["cost_usd_per_month"], head["ttft_p99_s"], -head["quality_mean"]

    known = [each for each in evaluated if each["headlines"]["ttft_p99_s"] is not None]
    return [
        each
        for each in known
        if not any(all(a <= b for a, b in zip(key(o), key(each), strict=True)) and key(o) != key(each) for o in known)
    ]


def curve() -> list[dict[str, Any]]:
    """Latency against load: flat, then a knee at 1.4 times the traffic, then overload."""
    points = []
    for tenth in range(4, 19, 2):
        scale = tenth / 10
        known = scale < 1.7
        ttft_s = 0.2 + 0.3 / max(1.75 - scale, 0.05)
        points.append(
            {
                "rate_scale": scale,
                "rate_rps": 11.8 * scale,
                "ttft_p99_s": ttft_s if known else None,
                "tpot_p99_s": 0.02 + 0.02 * scale if known else None,
                "e2e_p99_s": 9.0 + 4 * ttft_s if known else None,
                "slo_attainment": 0.999 if scale <= 1.4 else 0.93,
                "gpu_busy": min(0.5 * scale, 0.99),
                "kv_usage": min(0.1 + 0.3 * scale**2, 1.0),
                "stability": "STABLE" if known else "OVERLOADED",
                "by_class": {
                    "chat": {
                        "ttft_p99_s": ttft_s if known else None,
                        "tpot_p99_s": 0.02 + 0.02 * scale if known else None,
                        "e2e_p99_s": 9.0 + 4 * ttft_s if known else None,
                    },
                    "code": {
                        "ttft_p99_s": 1.5 * ttft_s if known else None,
                        "tpot_p99_s": 0.02 if known else None,
                        "e2e_p99_s": 6.0 + 4 * ttft_s if known else None,
                    },
                },
            }
        )
    return points


def timeline() -> dict[str, Any]:
    """A day in half hours: traffic and how busy each pool is."""
    t_s = [1800.0 * i for i in range(48)]
    day = [0.5 - 0.45 * math.cos(2 * math.pi * t / 86_400) for t in t_s]
    return {
        "t_s": t_s,
        "arrivals_rps": [12 * x for x in day],
        "pools": {
            "small fp8": {"busy": [0.9 * x for x in day], "kv_usage": [0.7 * x for x in day], "replicas": [6] * 48},
            "large": {"busy": [0.6 * x + 0.1 for x in day], "kv_usage": [0.4 * x for x in day], "replicas": [2] * 48},
        },
    }


def otherwise(factor: str, low: tuple[str, float | None], high: tuple[str, float | None]) -> dict[str, Any]:
    """One factor of the sensitivity: a label and a cost at either end."""
    ends = [
        {"label": label, "cost_usd_per_month": cost, "fleet": None if cost is None else f"a fleet for ${cost:,.0f}"}
        for label, cost in (low, high)
    ]
    return {"factor": factor, "low": ends[0], "high": ends[1]}


SENSITIVITY = [
    otherwise("traffic", ("-20%", 15_100.0), ("+20%", 21_400.0)),
    otherwise("answer tokens", ("-20%", 15_900.0), ("+20%", 22_700.0)),
    otherwise("step times", ("6% faster", 17_757.0), ("6% slower", 19_116.0)),
    otherwise("latency targets", ("20% looser", 12_954.0), ("20% tighter", None)),
    otherwise("price of L40S", ("-20%", 16_127.0), ("+20%", 19_388.0)),
]


def document(**changes: Any) -> dict[str, Any]:
    """A whole plan.json that is feasible."""
    best = plan()
    evaluated = [best, *(each for each in candidates() if each["id"] != best["id"])]
    meeting = sorted((each for each in evaluated if each["meets"]), key=lambda each: each["cost_usd_per_month"])
    made = {
        "name": "chat and code",
        "answer": "Buy 6 L40S and 4 H100: small fp8 (6 x Llama-3.1-8B fp8 on 1 L40S) and large (2 x Llama-3.3-70B "
        "awq-int4 on 2 H100) under quant_aware meet every target at $17,757 a month.",
        "feasible": True,
        "best": best,
        "runner_up": meeting[1],
        "frontier": frontier(meeting),
        "evaluated": evaluated,
        "nearest": None,
        "relax": [],
        "binding": [
            {"constraint": "ttft_p99", "class": "chat", "value": 0.81, "limit": 1.0, "margin": 0.19},
            {"constraint": "attainment", "class": "chat", "value": 0.9934, "limit": 0.99, "margin": 0.34,
             "loss": "1 x small fp8 gone"},
            {"constraint": "tpot_p99", "class": "chat", "value": 0.0412, "limit": 0.05, "margin": 0.176},
            {"constraint": "quality_floor", "class": "code", "value": 0.9932, "limit": 0.99, "margin": 0.32},
            {"constraint": "budget", "class": None, "value": 17_757.0, "limit": 20_000.0, "margin": 0.112},
            {"constraint": "quota H100", "class": None, "value": 4.0, "limit": 4.0, "margin": 0.0},
        ],
        "headroom": {
            "rate_scale": 1.4,
            "breaks_at": 1.42,
            "text": "holds up to 1.4 times the traffic; at 1.42 times the p99 TTFT of chat breaks",
        },
        "search": {
            "candidates": 2304,
            "options": 20,
            "pruned": {"throughput": 1602, "quality": 240, "not_needed": 391},
            "asked": 71,
            "exhaustive": False,
            "simulated": 63,
            "reused": 8,
            "failed": 0,
            "seconds": 141.2,
        },
        "slo": SLO,
        "traffic": {"traces": ["azure_conv.csv", "azure_code.csv"], "requests": 42_480, "seconds": 3600.0,
                    "requests_per_s": 11.8, "input_tokens_mean": 1211.0, "output_tokens_mean": 205.0, "growth": 1.25,
                    "classes": {"chat": 30_000, "code": 12_480}},
        "unfit": [{"name": "Llama-3.3-70B bf16 L40S", "reason": "does not fit: 142 GB of weights in 44.4 GiB"}],
        "seed": 7,
        "assumptions": ["code on Llama-3.3-70B awq-int4: quality 0.81 assumed, no published figure"],
        "notes": ["azure_code.csv: 2 rows without tokens were skipped"],
        "curve": curve(),
        "timeline": timeline(),
        "sensitivity": SENSITIVITY,
    }  # fmt: skip
    return copy.deepcopy(made | changes)


def infeasible() -> dict[str, Any]:
    """A plan.json whose quality floor nothing reaches under the budget."""
    near = plan(violations=[violation("quality_floor", "code", 0.71, 0.99)])
    missed = [each | {"meets": False, "violations": near["violations"]} for each in candidates()]
    return document(
        answer="No fleet here keeps every promise: the nearest is 6 x small fp8 + 2 x large, quant_aware, $17,758 a "
        "month; relax the share of answers that reach the quality floor of code from 99.00% to 71.00%.",
        feasible=False,
        best=None,
        runner_up=None,
        nearest=near,
        evaluated=missed,
        frontier=[],
        binding=[],
        relax=[
            {"constraint": "quality_floor", "class": "code", "limit": 0.99, "needed": 0.71,
             "text": "relax the share of answers that reach the quality floor of code from 99.00% to 71.00%"},
            {"constraint": "budget", "class": None, "limit": 20_000.0, "needed": 31_250.0,
             "text": "raise the budget from $20,000 to $31,250 a month for Llama-3.3-70B in bf16"},
        ],
        headroom=None,
        curve=None,
        timeline=None,
        sensitivity=None,
    )  # fmt: skip
