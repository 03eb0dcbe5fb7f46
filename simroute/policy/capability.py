"""How good a variant is at a class of requests: the seam `QualityOracle` and a table that answers from given rows.

Where rows come from (published evaluations, a scenario's assumptions) is the caller's business.
May import errors and workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from simroute.errors import CatalogueError, UsageError
from simroute.workload.columns import DEFAULT_NAME

Key = tuple[str, str, str]


class Variant(Protocol):
    """What names a variant; `VariantInfo` is one."""

    @property
    def model(self) -> str:
        """The model's name in the catalogue."""

    @property
    def quantization(self) -> str:
        """The quantization scheme's name in the catalogue."""


class QualityOracle(Protocol):
    """Says how well a variant serves a class of requests."""

    def score(self, variant: Variant, request_class: str) -> tuple[float, float, float]:
        """(mean, low, high) quality, each in 0..1, with low <= mean <= high."""


class QualityRow(NamedTuple):
    """One quality figure: `mean` in the interval `low`..`high`, each in 0..1.

    `source` says who published it or, for an assumption (`assumed`), why it is believed.
    """

    model: str
    quantization: str
    request_class: str
    mean: float
    low: float
    high: float
    source: str
    assumed: bool = False


class TableQuality:
    """Quality from rows: an assumption wins over a published figure, a row of the class over one of class `default`.

    Published rows of the same variant and class (several evaluations) become one: the mean of their means, the widest
    interval, all sources. Raises UsageError for a row out of 0 <= low <= mean <= high <= 1 and for two assumptions
    about the same thing.
    """

    def __init__(self, published: Iterable[QualityRow], assumptions: Iterable[QualityRow] = ()) -> None:
        evaluations: dict[Key, list[QualityRow]] = {}
        for row in published:
            evaluations.setdefault(_key(_checked(row)), []).append(row)
        self._rows = {key: _merged(rows) for key, rows in evaluations.items()}
        stated: set[Key] = set()
        for row in assumptions:
            key = _key(_checked(row))
            if key in stated:
                raise UsageError(f"quality of {_name(key)}: assumed twice; keep one of the two")
            stated.add(key)
            self._rows[key] = row._replace(assumed=True)

    def find(self, variant: Variant, request_class: str) -> QualityRow | None:
        """The row that answers for the variant and class, None where nothing is known."""
        rows = [self._rows.get((variant.model, variant.quantization, c)) for c in (request_class, DEFAULT_NAME)]
        return rows[0] or rows[1]

    def rows_of(self, variant: Variant) -> list[QualityRow]:
        """The rows of the variant, one for each class that has its own, in the order in which they were given."""
        return [
            row for row in self._rows.values() if (row.model, row.quantization) == (variant.model, variant.quantization)
        ]

    def score(self, variant: Variant, request_class: str) -> tuple[float, float, float]:
        """(mean, low, high) as `QualityOracle`; raises CatalogueError where nothing is known."""
        row = self.find(variant, request_class)
        if row is None:
            key = (variant.model, variant.quantization, request_class)
            raise CatalogueError(f"quality of {_name(key)}: nothing published; state an assumption in the scenario")
        return row.mean, row.low, row.high

    def basis(self, variants: Iterable[Variant], request_classes: Sequence[str]) -> list[QualityRow]:
        """Every row that the scores of these variants and classes rest on, once each, `assumed` telling which kind."""
        found = (self.find(variant, request_class) for variant in variants for request_class in request_classes)
        return list(dict.fromkeys(row for row in found if row is not None))


def _key(row: QualityRow) -> Key:
    return row.model, row.quantization, row.request_class


def _name(key: Key) -> str:
    model, quantization, request_class = key
    return f"{model} {quantization} for class '{request_class}'"


def _checked(row: QualityRow) -> QualityRow:
    if not 0.0 <= row.low <= row.mean <= row.high <= 1.0:
        raise UsageError(
            f"quality of {_name(_key(row))} ({row.source}): must be 0 <= low <= mean <= high <= 1, "
            f"got low {row.low:g}, mean {row.mean:g}, high {row.high:g}"
        )
    return row


def _merged(rows: Sequence[QualityRow]) -> QualityRow:
    if len(rows) == 1:
        return rows[0]
    return rows[0]._replace(
        mean=sum(row.mean for row in rows) / len(rows),
        low=min(row.low for row in rows),
        high=max(row.high for row in rows),
        source="; ".join(dict.fromkeys(row.source for row in rows)),
    )
