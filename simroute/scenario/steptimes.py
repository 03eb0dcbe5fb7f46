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
    "estimated": "estimated by a roofline model",
    "measured": "measured on a real vLLM",
    "composed": "composed from measured kernels",
    "proxy": "composed from measured kernels, some of them stood in for by others' ratios",
}


def step_times(pools: Sequence[Pool]) -> dict[str, StepTimes]:
    """The basis and the measured range of each pool's step times, by pool name."""
    return {pool.name: _known(pool) for pool in pools}


def basis_notes(pools: Sequence[Pool], variants: Sequence[Variant]) -> list[str]:
    """What the step times of each pool rest on, a line each; none where all are estimates, for every table says so."""
    if all(pool.step_time.estimated for pool in pools):
        return []
    return [
        f"step times of pool {pool.name}: {_basis(pool, variant)}"
        for pool, variant in zip(pools, variants, strict=True)
    ]


def drawn_pools(pools: Sequence[Pool], seed: int, replicate: int) -> tuple[Pool, ...]:
    """The pools with step times drawn anew, the same way for every policy that replays replicate number `replicate`.

    Pools of one (model, quantization, GPU, TP) are off together: what was measured of one holds for the other.
    What the router believes of costs stays as it is: it knows the calibration, not the truth.
    """
    drawn = []
    for pool in pools:
        variant = pool.variant
        names = (variant.model, variant.quantization, variant.gpu, variant.tensor_parallel)
        drawn.append(replace(pool, step_time=pool.step_time.drawn(stream(seed, "replicate", replicate, *names))))
    return tuple(drawn)


def _known(pool: Pool) -> StepTimes:
    model, engine = pool.step_time, pool.engine
    measured = model.calibration.range if isinstance(model, FittedStepTime) else None
    return StepTimes(model.basis, measured, engine.block_size, engine.max_num_batched_tokens)


def _basis(pool: Pool, variant: Variant) -> str:
    said, found = _SAID[pool.step_time.basis], variant.calibration
    if found is None:
        return said
    of = found.calibration
    return f"{said} ({found.name}, vLLM {of.vllm}, median error of a step {of.error.median:.1%})"
