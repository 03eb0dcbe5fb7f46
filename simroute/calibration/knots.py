"""The GEMM curve: which token counts it bends at, chosen from data. Imports numpy and this room's solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from simroute.calibration.solve import Floats, nonnegative

MOST_CANDIDATES = 24
"""Token counts tried as knots, at most: three to an octave from 16 to 8,192."""
TOLERANCE = 0.01
"""A knot goes when the curve without it is not further off than this, as a root mean square."""


def fit_gemm_knots(
    tokens: ArrayLike, seconds: ArrayLike, *, tolerance: float = TOLERANCE, most: int = MOST_CANDIDATES
) -> dict[int, float]:
    """The monotone piecewise linear curve through measured (tokens, seconds), as `StepTerms.gemm_ms`: knots in ms.

    As few knots as keep the root mean square of relative errors within `tolerance` of what `most` knots reach.
    Points of equal tokens count together. Raises ValueError for none, or for times that are not above 0.
    """
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if not len(x) or not (y > 0).all():
        raise ValueError("fit_gemm_knots needs at least one point, and times above 0")

    def curve(knots: Sequence[int]) -> Floats:
        return nonnegative(ramps(x, knots) / y[:, None], np.ones(len(x)))

    def error(knots: Sequence[int]) -> float:
        return float(np.sqrt(np.mean((ramps(x, knots) @ curve(knots) / y - 1) ** 2)))

    knots = pruned(candidate_knots(x, most), error, tolerance)
    return dict(zip(knots, (np.cumsum(curve(knots)) * 1e3).tolist(), strict=True))


def candidate_knots(tokens: ArrayLike, most: int = MOST_CANDIDATES) -> tuple[int, ...]:
    """Up to `most` of the token counts measured: all, or those nearest to even steps of their logarithm."""
    found = np.unique(np.asarray(tokens, dtype=np.int64))
    found = found[found > 0]
    if len(found) > most:
        wanted = np.linspace(np.log(found[0]), np.log(found[-1]), most)
        found = np.unique(found[[np.abs(np.log(found) - at).argmin() for at in wanted]])
    return tuple(found.tolist())


def ramps(tokens: ArrayLike, knots: Sequence[int]) -> Floats:
    """The curve's value at `tokens` as a matrix: times its rises from knot to knot, the first value being one too.

    With rises ≥ 0 the curve is monotone. It is constant below the first knot and goes on beyond the last.
    """
    at = np.asarray(tokens, dtype=np.float64)
    columns = [np.ones(len(at))]
    for number, (left, right) in enumerate(pairwise(knots), start=2):
        share = np.maximum((at - left) / (right - left), 0.0)
        columns.append(share if number == len(knots) else np.minimum(share, 1.0))
    return np.column_stack(columns)


def merged(fine: Sequence[int], kept: Sequence[int]) -> Floats:
    """The matrix M with ramps(x, kept) == ramps(x, fine) @ M, where `kept` are some of `fine`, both ends among them."""
    values = ramps(fine, kept)
    return np.vstack([values[:1], np.diff(values, axis=0)])


Path: TypeAlias = list[tuple[float, tuple[int, ...]]]
"""(error, knots) of ever fewer knots."""


def eliminated(knots: Sequence[int], error: Callable[[Sequence[int]], float]) -> Path:
    """The path from all `knots` to the two ends: they go one by one, each time the one that is missed least."""
    kept = tuple(knots)
    path = [(error(kept), kept)]
    while len(kept) > 2:
        fewer = [kept[:i] + kept[i + 1 :] for i in range(1, len(kept) - 1)]
        found, kept = min(((error(these), these) for these in fewer), key=lambda pair: pair[0])
        path.append((found, kept))
    return path


def fewest(path: Path, tolerance: float = TOLERANCE) -> tuple[int, ...]:
    """The fewest knots of `path` whose error is within `tolerance` (in root mean square) of its least."""
    limit = np.hypot(min(found for found, _ in path), tolerance)
    return next(these for found, these in reversed(path) if found <= limit)


def pruned(
    knots: Sequence[int], error: Callable[[Sequence[int]], float], tolerance: float = TOLERANCE
) -> tuple[int, ...]:
    """As few of `knots` as keep the `error` within `tolerance` of the least seen on the way."""
    return fewest(eliminated(knots, error), tolerance)
