"""The physical form of a step's duration as a linear model: GEMM ramps and one column for each other term.

Owns the folds, the cells that balance common batches against rare ones, and the choice of knots and CUDA-graph
padding by k-fold error. Imports numpy, hardware and this room's knots, solve and steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.knots import candidate_knots, eliminated, fewest, merged, ramps
from simroute.calibration.solve import Floats, compressed, nonnegative, robust_relative
from simroute.calibration.steps import Steps

FOLDS = 5
BLOCK_STEPS = 20
"""Most steps in a row that go into the same fold: neighbours share the machine's moods, and a fold must not."""
BLOCKS = 25
"""Least number of such blocks in a group that is large enough."""
KNOTS = 18
"""Token counts tried as knots: three in two octaves from 1 to 4,096."""
KNOT_TOLERANCE = 0.003
"""Loss of accuracy (relative, root mean square on unseen steps) at which a knot still goes."""
PADDING_GAIN = 0.01
"""Least relative gain in k-fold error for which CUDA-graph padding is believed."""
LEAST_UNSAMPLED = 0.01
"""Share of steps with a chunk that ends no prompt from which on the cost of sampling shows."""
COLUMNS = ("prefill_seqs", "decode_seqs", "prefill_pairs", "decode_context_tokens", "sampled_seqs")
"""Inputs that cost in proportion, in the order of `calibration.SLOPES`."""


@dataclass(frozen=True, slots=True)
class Form:
    """Which linear model: where the GEMM curve bends, and to which sizes a decoding batch is padded."""

    knots: tuple[int, ...]
    graph_sizes: tuple[int, ...] = ()
    samples: bool = True
    """Whether sampling can be told apart from what else a request costs; if not, its column is 0."""

    def matrix(self, steps: Steps) -> Floats:
        """One row a step: the GEMM ramps at its (padded) tokens, the inputs of `COLUMNS`, and the arrivals."""
        tokens = padded_tokens(steps, self.graph_sizes)
        others = np.column_stack([steps[name] for name in COLUMNS])
        others[:, -1] *= self.samples
        return np.column_stack([ramps(tokens, self.knots), others, steps.arrivals])


def fine_form(steps: Steps) -> Form:
    """The form with every knot that is worth trying, without padding."""
    unsampled = steps["sampled_seqs"] < steps["prefill_seqs"] + steps["decode_seqs"]
    return Form(candidate_knots(steps.tokens, KNOTS), samples=bool(unsampled.mean() > LEAST_UNSAMPLED))


def padded_tokens(steps: Steps, graph_sizes: Sequence[int]) -> Floats:
    """Tokens that each batch computes: batches that only decode are padded up to the next CUDA-graph size."""
    tokens = steps.tokens
    if not graph_sizes:
        return tokens
    sizes = np.asarray(graph_sizes, dtype=np.float64)
    captured = steps.decodes_only & (tokens <= sizes[-1])
    return np.where(captured, sizes[np.minimum(np.searchsorted(sizes, tokens), len(sizes) - 1)], tokens)


def blocks_of(steps: Steps) -> NDArray[np.int64]:
    """Which block of consecutive steps of its group each step belongs to, numbered through."""
    block = np.empty(len(steps), dtype=np.int64)
    first = 0
    for number in range(len(steps.groups)):
        members = np.flatnonzero(steps.group == number)
        length = max(1, min(BLOCK_STEPS, len(members) // BLOCKS))
        block[members] = first + np.arange(len(members)) // length
        first += -(-len(members) // length)
    return block


def folds_of(steps: Steps) -> NDArray[np.int64]:
    """The fold of every step: blocks of consecutive steps of a group, dealt out in turn."""
    return blocks_of(steps) % FOLDS


def cells_of(steps: Steps) -> NDArray[np.int64]:
    """Which steps are alike: same octave of tokens, of decoding requests and of contexts, same prefills or none."""
    keys = np.column_stack(
        [
            np.log2(np.maximum(steps.tokens, 1)).round(),
            np.log2(steps["decode_seqs"] + 1).round(),
            np.log2(steps["decode_context_tokens"] + 1).round(),
            np.minimum(steps["prefill_seqs"], 2),
        ]
    )
    return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1], dtype=np.int64).ravel()


def cell_weights(cells: NDArray[np.int64]) -> Floats:
    """A weight a step, 1 on average: a cell counts by the root of its steps: common batches do not drown rare ones."""
    weights = 1 / np.sqrt(np.bincount(cells)[cells])
    return np.asarray(weights / weights.mean())


def chosen_form(steps: Steps, weights: Floats, paddings: Iterable[tuple[int, ...]]) -> Form:
    """The form with the least error on unseen steps: padded where that is seen to be so, as few knots as it takes.

    `paddings` are the lists of CUDA-graph sizes to try besides none; each is judged by the best of its choices of
    knots, on the same steps with the same weights.
    """
    form = fine_form(steps)
    weights = weights * robust_relative(form.matrix(steps), steps.duration_s, weights).weights
    path = eliminated(form.knots, _FoldErrors(form, steps, weights))
    for sizes in paddings:
        padded = replace(form, graph_sizes=sizes)
        other = eliminated(form.knots, _FoldErrors(padded, steps, weights))
        if min(other)[0] < min(path)[0] * (1 - PADDING_GAIN):
            form, path = padded, other
    return replace(form, knots=fewest(path, KNOT_TOLERANCE))


class _FoldErrors:
    """k-fold error of any choice among the knots of `fine`, from one compressed block of rows a fold."""

    def __init__(self, fine: Form, steps: Steps, weights: Floats) -> None:
        self._knots = fine.knots
        matrix = fine.matrix(steps)
        root = np.sqrt(weights)
        rows, ones = matrix / steps.duration_s[:, None] * root[:, None], root
        folds = folds_of(steps)
        present = [fold for fold in range(FOLDS) if (folds == fold).any()]
        self._blocks = [compressed(rows[folds == fold], ones[folds == fold]) for fold in present]
        self._weight = float((root**2).sum())

    def __call__(self, knots: Sequence[int]) -> float:
        """Root mean square of relative errors on the fold that was left out."""
        others = len(COLUMNS) + 1
        change = np.zeros((len(self._knots) + others, len(knots) + others))
        change[: len(self._knots), : len(knots)] = merged(self._knots, knots)
        change[len(self._knots) :, len(knots) :] = np.eye(others)
        blocks = [(rows @ change, right) for rows, right in self._blocks]
        total = 0.0
        for left_out, (rows, right) in enumerate(blocks):
            rest = [block for i, block in enumerate(blocks) if i != left_out] or blocks
            values = nonnegative(np.vstack([r for r, _ in rest]), np.concatenate([t for _, t in rest]))
            total += float(np.sum((rows @ values - right) ** 2))
        return float(np.sqrt(total / self._weight))
