"""A small plan to vary: a trace of two classes, one model in two schemes on two GPUs, replays in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import InProcess
from simroute.planner.fleets.candidates import Space, space_of
from simroute.planner.fleets.evaluate import Evaluator
from simroute.planner.fleets.loading import read_plan
from simroute.planner.fleets.spec import PlanSpec


def rows(requests: int, per_s: float, seed: int) -> str:
    """A trace: Poisson arrivals, short chats and, for three in ten, long prompts of coding."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / per_s, requests))
    coding = rng.random(requests) < 0.3
    prompt = np.where(coding, rng.integers(500, 2500, requests), rng.integers(100, 700, requests))
    answer = np.where(coding, rng.integers(5, 60, requests), rng.integers(20, 200, requests))
    lines = ["arrival_s,input_tokens,output_tokens,request_class"]
    for a, p, o, c in zip(arrival_s, prompt, answer, coding, strict=True):
        lines.append(f"{a:.4f},{p},{o},{'coding' if c else 'chat'}")
    return "\n".join(lines) + "\n"


def tiny(folder: Path, *, requests: int = 150, per_s: float = 12.0, seed: int = 1) -> dict[str, Any]:
    """A valid plan beside its trace, `trace.csv`."""
    (folder / "trace.csv").write_text(rows(requests, per_s, seed))
    return {
        "name": "tiny",
        "traffic": {"traces": [{"path": "trace.csv"}]},
        "classes": {"default": {"slo": {"ttft_s": 1.0, "tpot_s": 0.08}, "attainment": 0.95}},
        "candidates": [
            {
                "model": "Llama-3.1-8B",
                "quantization": ["bf16", "fp8"],
                "gpu": ["L4", "L40S"],
                "replicas": {"max": 6},
                "engine": {"max_model_len": 4096},
            }
        ],
        "calibrations": "none",
    }


def planned(folder: Path, data: dict[str, Any]) -> PlanSpec:
    """The plan, written to a file (JSON is YAML) and read from it."""
    path = folder / "plan.yaml"
    path.write_text(json.dumps(data))
    return read_plan(path).spec


def spanned(folder: Path, data: dict[str, Any]) -> Space:
    """Its space."""
    return space_of(planned(folder, data))


def evaluator(space: Space) -> Evaluator:
    """One that asks in this process and keeps nothing."""
    return Evaluator(space, InProcess(), Cache(None))
