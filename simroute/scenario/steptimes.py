"""What the pools' step times rest on: said in notes, compared with what was measured, drawn anew for replicates.

May import fleet, hardware, results, rng and, of this room, variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simroute.fleet.pool import Pool
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.reference import REFERENCE_INPUT_TOKENS, REFERENCE_OUTPUT_TOKENS
from simroute.hardware.steptime import Batch
from simroute.results.extrapolation import StepTimes
from simroute.rng import stream
from simroute.scenario.variants import Variant

_SAID = {
    "measured": "measured on a real vLLM",
    "composed": "composed from measured kernels",
    "proxy": "composed from measured kernels, some of them stood in for by others' ratios",
}


def step_times(pools: Sequence[Pool]) -> dict[str, StepTimes]:
    """The basis and the measured range of each pool's step times, by pool name."""
    return {pool.name: _known(pool) for pool in pools}


def basis_notes(pools: Sequence[Pool], variants: Sequence[Variant]) -> list[str]:
    """What the step times of each calibrated pool rest on, a line each; of the others every table tells."""
    return [
        f"step times of pool {pool.name}: {_SAID[found.calibration.basis]} ({found.name}, vLLM "
        f"{found.calibration.vllm}, median error of a step {found.calibration.error.median:.1%})"
        for pool, variant in zip(pools, variants, strict=True)
        if (found := variant.calibration) is not None
    ]


def drawn_pools(pools: Sequence[Pool], seed: int, replicate: int) -> tuple[Pool, ...]:
    """The pools with step times and request overheads drawn anew: the same for every policy that replays `replicate`.

    Pools of one (model, quantization, GPU, TP) are off together: what was measured of one holds for the other.
    What the router believes of costs stays as it is: it knows the calibration, not the truth.
    """
    drawn = []
    for pool in pools:
        variant = pool.variant
        names = (variant.model, variant.quantization, variant.gpu, variant.tensor_parallel)
        step_time = pool.step_time.drawn(stream(seed, "replicate", replicate, *names))
        request = step_time.calibration.request if isinstance(step_time, FittedStepTime) else pool.request
        drawn.append(replace(pool, step_time=step_time, request=request))
    return tuple(drawn)


def output_token_weight(pool: Pool) -> float:
    """How many prompt tokens an output token is worth in a replica's time, at the reference load.

    A prompt token costs its part of the prefill of a prompt of the reference length, an output token its part of a
    step in which as many requests decode as seats and KV memory hold at half their answers.
    """
    engine, context = pool.engine, REFERENCE_INPUT_TOKENS + REFERENCE_OUTPUT_TOKENS // 2
    prompt = min(REFERENCE_INPUT_TOKENS, engine.max_num_batched_tokens)
    prefill = Batch(1, prompt, prompt * (prompt + 1) // 2, 0, 0, 1)
    seqs = max(min(engine.max_num_seqs, engine.num_gpu_blocks * engine.block_size // context), 1)
    intercept_s, slope_s = pool.step_time.decode_line(seqs)
    output_token_s = (intercept_s + slope_s * seqs * context) / seqs
    return output_token_s * prompt / pool.step_time.duration_s(prefill)


def _known(pool: Pool) -> StepTimes:
    model, engine = pool.step_time, pool.engine
    measured = model.calibration.range if isinstance(model, FittedStepTime) else None
    tokens = engine.max_num_batched_tokens
    return StepTimes(model.basis, measured, engine.block_size, tokens, output_token_weight(pool))
