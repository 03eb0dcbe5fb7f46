"""Is a difference real or noise: paired statistics over worlds that two policies share.

Owns the headline numbers that are compared, and the verdicts. Imports numpy, scipy inside, and of results intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Number = float | None
Verdict = Literal["better", "worse", "noise"]


class Headline(NamedTuple):
    """A number of a summary by its name (`ttft_s.p99`), and whether less of it is better."""

    name: str
    less_is_better: bool


HEADLINES = (
    Headline("ttft_s.p50", True),
    Headline("ttft_s.p99", True),
    Headline("tpot_s.p99", True),
    Headline("e2e_s.p99", True),
    Headline("slo_attainment", False),
    Headline("goodput_rps", False),
    Headline("cost_usd_per_month", True),
    Headline("cost_usd_per_1m_output_tokens", True),
    Headline("quality.mean", False),
)
"""The numbers that policies are compared by."""


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval; None without values, or without an interval for one value."""

    mean: Number
    low: Number
    high: Number


def student(differences: NDArray[np.float64], level: float) -> Interval:
    """The mean of paired differences and its Student interval: mean ± t sd / √n, t with n - 1 degrees of freedom."""
    n = len(differences)
    if n < 2:
        return Interval(float(differences[0]) if n else None, None, None)
    from scipy.stats import t

    mean = float(differences.mean())
    half = float(t.ppf((1 + level) / 2, n - 1)) * float(differences.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def sign_test(gains: int, losses: int) -> float:
    """How probable it is that a fair coin falls as unevenly as `gains` to `losses`, or more so; 1 for no throws."""
    if not gains + losses:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gains, gains + losses).pvalue)


def paired(ours: Sequence[Number], theirs: Sequence[Number], *, less_is_better: bool, level: float) -> dict[str, Any]:
    """One number of a policy (`ours`) against the baseline's (`theirs`), world by world, as docs/compare.md defines.

    None is a number that could not be stated (the tail of an overloaded run). It is never averaged: the means and the
    interval are over the worlds that have both. Where one side alone lacks it, that side has lost the world, and the
    verdict is then that of a sign test over all worlds instead of the interval's.
    """
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    mine, other = (np.array([pair[side] for pair in both], dtype=np.float64) for side in (0, 1))
    change = student(mine - other, level)
    gained = np.sign(other - mine if less_is_better else mine - other)
    lost_by_none = sum(a is None and b is not None for a, b in zip(ours, theirs, strict=True))
    won_by_none = sum(b is None and a is not None for a, b in zip(ours, theirs, strict=True))
    gains, losses = int((gained > 0).sum()) + won_by_none, int((gained < 0).sum()) + lost_by_none
    stated = not (lost_by_none or won_by_none)
    verdict = _by_interval(change, less_is_better) if stated else _by_signs(gains, losses, level)
    return {
        "policy_mean": float(mine.mean()) if both else None,
        "baseline_mean": float(other.mean()) if both else None,
        **change._asdict(),
        "verdict": verdict,
        "worlds": len(both),
        "better_in": gains,
        "worse_in": losses,
        "without_value": {"policy": sum(a is None for a in ours), "baseline": sum(b is None for b in theirs)},
    }


def _by_interval(change: Interval, less_is_better: bool) -> Verdict:
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return "noise"
    return "better" if (change.high < 0) == less_is_better else "worse"


def _by_signs(gains: int, losses: int, level: float) -> Verdict:
    if sign_test(gains, losses) > 1 - level:
        return "noise"
    return "better" if gains > losses else "worse"
