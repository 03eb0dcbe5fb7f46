"""Bounded least squares on relative residuals, with outliers held down. Imports numpy, and scipy where it solves."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

HUBER_SDS = 1.5
"""Residuals beyond so many robust standard deviations count by their size, not by its square."""
MAD_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
MANY_ROWS = 10
"""So many rows a column are reduced to as many as there are columns before they are solved."""
CHUNK_ROWS = 256
"""Rows that are multiplied at once: few enough for BLAS to stay in one thread. Its threads wait for each other in
turns, and crawl where an engine that is being measured holds the cores."""
ROUNDS = 30
"""Most re-weightings; the weights settle in about ten."""
SETTLED = 1e-4
"""Relative change of every value at which they have."""


def nonnegative(matrix: Floats, target: Floats) -> Floats:
    """The x ≥ 0 that makes |matrix @ x - target| least; a column of zeros gets 0."""
    from scipy.optimize import nnls

    size = np.sqrt(np.einsum("ij,ij->j", matrix, matrix))
    used = size > 0
    found = np.zeros(matrix.shape[1])
    if used.any():
        rows, right = matrix[:, used] / size[used], target
        if len(rows) > MANY_ROWS * rows.shape[1]:
            rows, right = compressed(rows, right)
        found[used] = nnls(rows, right, maxiter=100 * matrix.shape[1])[0] / size[used]
    return found


def compressed(matrix: Floats, target: Floats) -> tuple[Floats, Floats]:
    """As few rows as `matrix` has columns (and one more) that have the same least-squares solutions and residual.

    The square root of the normal equations' matrix, summed over chunks of rows. Columns are brought to one size for it:
    some count pairs of tokens, others requests, and the digits of the small ones must not drown.
    """
    both = np.column_stack([matrix, target])
    total = np.zeros((both.shape[1], both.shape[1]))
    for begin in range(0, len(both), CHUNK_ROWS):
        chunk = both[begin : begin + CHUNK_ROWS]
        total += chunk.T @ chunk
    size = np.sqrt(np.diag(total))
    scale = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(total / np.outer(scale, scale))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * scale
    return root[:, :-1], root[:, -1]


def times(matrix: Floats, values: Floats) -> Floats:
    """`matrix @ values`, in this thread (see CHUNK_ROWS)."""
    return np.asarray(np.einsum("ij,j->i", matrix, values))


class Robust(NamedTuple):
    """A robust solution: `values`, each row's relative residual (predicted / measured - 1), and its weight, 0..1."""

    values: Floats
    residuals: Floats
    weights: Floats


def robust_relative(matrix: Floats, measured: Floats, weights: Floats) -> Robust:
    """The x ≥ 0 for which `matrix @ x` comes nearest to `measured`, in ratio.

    Residuals are relative, weighted by `weights`, and Huber's beyond 1.5 robust standard deviations.
    """
    relative = matrix / measured[:, None]
    ones = np.ones(len(measured))
    huber, values = ones, np.zeros(matrix.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(weights * huber)
        before, values = values, nonnegative(relative * root[:, None], root)
        residuals = times(relative, values) - 1
        scale = max(weighted_quantile(np.abs(residuals), 0.5, weights) * MAD_SD, 1e-9)
        huber = np.minimum(1.0, HUBER_SDS * scale / np.maximum(np.abs(residuals), 1e-12))
        if np.allclose(values, before, rtol=SETTLED, atol=0):
            break
    return Robust(values, residuals, huber)


def weighted_quantile(values: Floats, share: float, weights: Floats) -> float:
    """The least of `values` with at least `share` of the weight at or below it."""
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    index = np.searchsorted(cumulated, share * cumulated[-1])
    return float(values[order][min(int(index), len(values) - 1)])
