"""Quality figures: what wins, what is merged, what is refused, and which figures are assumptions."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from simroute.errors import CatalogueError, UsageError
from simroute.policy.capability import QualityRow, TableQuality


class Variant(NamedTuple):
    model: str
    quantization: str


INT4, FP8 = Variant("m", "int4"), Variant("m", "fp8")
PUBLISHED = [
    QualityRow("m", "int4", "chat", 0.80, 0.75, 0.85, "paper A"),
    QualityRow("m", "fp8", "chat", 0.90, 0.88, 0.92, "paper A"),
    QualityRow("m", "fp8", "chat", 0.80, 0.79, 0.81, "paper B"),
    QualityRow("m", "fp8", "default", 0.70, 0.60, 0.80, "paper A"),
]
GUESS = QualityRow("m", "int4", "chat", 0.60, 0.50, 0.70, "own evaluation")


def test_published_figure():
    assert TableQuality(PUBLISHED).score(INT4, "chat") == (0.80, 0.75, 0.85)


def test_several_evaluations_become_one():
    assert TableQuality(PUBLISHED).score(FP8, "chat") == (pytest.approx(0.85), 0.79, 0.92)
    row = TableQuality(PUBLISHED).find(FP8, "chat")
    assert row is not None
    assert row.source == "paper A; paper B"


def test_default_holds_for_classes_without_a_row():
    assert TableQuality(PUBLISHED).score(FP8, "coding") == (0.70, 0.60, 0.80)


def test_an_assumption_wins_over_what_is_published():
    table = TableQuality(PUBLISHED, [GUESS])
    assert table.score(INT4, "chat") == (0.60, 0.50, 0.70)


def test_basis_names_each_row_once_and_says_which_are_assumed():
    rows = TableQuality(PUBLISHED, [GUESS]).basis([INT4, FP8], ["chat", "coding", "extraction"])
    assert [(r.quantization, r.request_class, r.assumed) for r in rows] == [
        ("int4", "chat", True),
        ("fp8", "chat", False),
        ("fp8", "default", False),
    ]


def test_nothing_known():
    table = TableQuality(PUBLISHED)
    assert table.find(INT4, "coding") is None
    with pytest.raises(CatalogueError, match="quality of m int4 for class 'coding': nothing published; state"):
        table.score(INT4, "coding")


@pytest.mark.parametrize(
    ("mean", "low", "high"), [(1.1, 0.9, 1.2), (0.5, 0.6, 0.7), (0.5, 0.4, 0.45), (float("nan"), 0, 1)]
)
def test_a_row_out_of_range_is_refused_with_its_source(mean, low, high):
    row = QualityRow("m", "int4", "chat", mean, low, high, "paper C")
    with pytest.raises(UsageError, match=r"m int4 for class 'chat' \(paper C\): must be 0 <= low <= mean"):
        TableQuality([row])


def test_two_assumptions_about_the_same_are_refused():
    with pytest.raises(UsageError, match="assumed twice"):
        TableQuality([], [GUESS, GUESS])
