"""What the pools' step times rest on: said in notes, compared with what was measured, drawn anew for replicates.

May import fleet, hardware, results, rng and, of this room, variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simroute.fleet.pool import Pool
from simroute.hardware.fitted import FittedStepTime
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


def _known(pool: Pool) -> StepTimes:
    model, engine = pool.step_time, pool.engine
    measured = model.calibration.range if isinstance(model, FittedStepTime) else None
    return StepTimes(model.basis, measured, engine.block_size, engine.max_num_batched_tokens)
