"""Steps of a made-up engine whose terms are known: what a fit must find again. Written without the code under test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from simroute.calibration.runs import ITERATION_COLUMNS, REQUEST_COLUMNS, Phase, Run, RunMeta, empty_table

DEFAULT_GRAPHS = (1, 2, 4, *range(8, 257, 8))


@dataclass
class Engine:
    """True costs of a step, in seconds, and how its clock is read.

    `sweep_s` is added to steps of the sweep, `noise` is the relative standard deviation of a step, `between_s`
    the CPU time between steps (part of no step's service time).
    """

    gemm: tuple[tuple[float, float], ...] = ((1, 4.0e-3), (64, 4.2e-3), (256, 6.0e-3), (2048, 40.0e-3))
    prefill_seq_s: float = 50e-6
    decode_seq_s: float = 20e-6
    pair_s: float = 2e-9
    context_token_s: float = 60e-9
    graphs: tuple[int, ...] = ()
    between_s: float = 0.0
    sweep_s: float = 0.0
    noise: float = 0.02

    def step_s(self, chunks: list[tuple[int, int]], contexts: list[int]) -> float:
        """Seconds of a step with these prefill chunks (start, tokens) and decoding contexts."""
        tokens = sum(n for _, n in chunks) + len(contexts)
        if not chunks:
            tokens = next((size for size in self.graphs if size >= tokens), tokens)
        gemm_s = float(np.interp(tokens, *zip(*self.gemm, strict=True)))
        pairs = sum(start + i + 1 for start, n in chunks for i in range(n))
        attention_s = pairs * self.pair_s + sum(contexts) * self.context_token_s
        return gemm_s + len(chunks) * self.prefill_seq_s + len(contexts) * self.decode_seq_s + attention_s


def sweep() -> list[tuple[list[tuple[int, int]], list[int]]]:
    """A designed grid: prefill chunks at three contexts, decode batches at three, both together."""
    steps = [([(start, n)], []) for n in (16, 32, 64, 128, 256, 512, 1024, 2048) for start in (0, 512, 2048)] * 4
    batches = (1, 2, 3, 4, 6, 8, 12, 16, 24, 31, 48, 64, 96, 128, 192, 250)
    steps += [([], [c] * b) for b in batches for c in (64, 512, 2048) for _ in range(8)]
    return steps + [([(0, n)], [300] * b) for b in (4, 32, 128) for n in (64, 400, 1500) for _ in range(5)]


def load(steps: int, seed: int) -> list[tuple[list[tuple[int, int]], list[int]]]:
    """A batch that drifts between 1 and 40 requests, with a prompt in one step of ten."""
    rng = np.random.default_rng(seed)
    size, found = 12, []
    for _ in range(steps):
        size = int(np.clip(size + rng.integers(-1, 2), 1, 40))
        prompt = [(0, int(rng.integers(20, 1000)))] if rng.random() < 0.1 else []
        found.append((prompt, rng.integers(100, 1500, size).tolist()))
    return found


def measured(engine: Engine, *, load_steps: int = 1500, seed: int = 0, name: str = "run", **changes: object) -> Run:
    """What the engine leaves behind: a sweep, and a load phase unless `load_steps` is 0."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    clock_s = 0.0
    for phase, batches in enumerate((sweep(), load(load_steps, seed))):
        more_s = engine.sweep_s if phase == 0 else 0.0
        for chunks, contexts in batches:
            service_s = (engine.step_s(chunks, contexts) + more_s) * float(np.exp(rng.normal(0, engine.noise)))
            rows.append(iteration(phase, clock_s + engine.between_s, service_s, chunks, contexts))
            clock_s += engine.between_s + service_s
    phases = (
        Phase(name="sweep", kind="sweep", start_s=0, end_s=1),
        Phase(name="load-30", kind="load", start_s=1, end_s=2),
    )
    table = pd.DataFrame(rows, columns=list(ITERATION_COLUMNS))
    return Run(meta(phases=phases[: 2 if load_steps else 1], **changes), table, empty_table(REQUEST_COLUMNS), name)


def iteration(
    phase: int,
    begin_s: float,
    service_s: float,
    chunks: list[tuple[int, int]],
    contexts: list[int],
    sched_s: float = 0.0,
) -> dict[str, float]:
    """A row of iterations.parquet; every chunk finishes its prompt."""
    return {
        "phase": phase,
        "t_s": begin_s - sched_s,
        "service_s": service_s,
        "sched_s": sched_s,
        "prefill_seqs": len(chunks),
        "prefill_tokens": sum(n for _, n in chunks),
        "prefill_context_tokens": sum(start for start, _ in chunks),
        "prefill_pairs": sum(n * start + n * (n + 1) // 2 for start, n in chunks),
        "decode_seqs": len(contexts),
        "decode_context_tokens": sum(contexts),
        "sampled_seqs": len(chunks) + len(contexts),
        "kv_blocks_used": 0,
        "running": len(chunks) + len(contexts),
        "waiting": 0,
        "preempted": 0,
    }


def meta(**changes: object) -> RunMeta:
    """An engine of the catalogue with vLLM's defaults on it."""
    values: dict[str, object] = {
        "gpu": "NVIDIA H100 80GB HBM3",
        "vllm": "0.26.0",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "model_config": {},
        "scheme": "fp8",
        "num_gpu_blocks": 30000,
        "block_size": 16,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "max_model_len": 8192,
        "async_scheduling": True,
        "enable_prefix_caching": False,
        "dummy_weights": True,
        "host": {"cpu": "a processor", "cores": 8},
        "phases": (Phase(name="sweep", kind="sweep", start_s=0, end_s=1),),
    }
    return RunMeta.model_validate(values | changes)
