"""What is known of answer quality: published evaluations, own measurements and assumptions, as one table.

A published *score* is taken as it is. A published *recovery* (a fraction of the 16-bit model's score) is multiplied
with what is known of that model in bf16; where that is an assumption, so is the product. What a capability matrix or
a table of accuracies says of a variant and class takes the place of what is published, and the scenario's own
assumptions take the place of both.
May import errors, hardware, policy and, of this room, matrix and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from simroute.errors import CatalogueError
from simroute.hardware import catalogue
from simroute.hardware.specs import AccuracyRow
from simroute.policy.capability import QualityRow, TableQuality
from simroute.scenario.matrix import read_quality
from simroute.scenario.models import QualityAssumption

BASE_SCHEME = "bf16"
"""The scheme that recoveries are fractions of."""


class Named(NamedTuple):
    """A variant by its names in the catalogue."""

    model: str
    quantization: str


def quality_table(
    variants: Iterable[Named], assumptions: Sequence[QualityAssumption], given: Sequence[QualityRow] = ()
) -> TableQuality:
    """Quality of these variants; `given` are rows as `given_rows` reads them.

    Raises CatalogueError for an unknown name, UsageError when one figure is assumed twice.
    """
    stated = [_row(assumption) for assumption in assumptions]
    named = {row[:3] for row in stated}
    given = [row for row in given if row[:3] not in named]
    named |= {row[:3] for row in given}
    stated += [row for row in given if row.assumed]
    models = dict.fromkeys(variant.model for variant in variants)
    published = [row for row in _scores(models) if row[:3] not in named]
    scores = [*(row for row in given if not row.assumed), *published]
    derived = [row for row in _recovered(models, TableQuality(scores, stated)) if row[:3] not in named]
    return TableQuality(
        [*scores, *(row for row in derived if not row.assumed)], [*stated, *(row for row in derived if row.assumed)]
    )


def given_rows(path: str | Path, variants: Iterable[Named]) -> list[QualityRow]:
    """The accuracies in a matrix or table, under the catalogue's names or, for other models, those of `variants`.

    Raises UsageError as `read_quality` does, and CatalogueError for a name that is neither.
    """
    own = {variant.model.lower(): variant.model for variant in variants}
    rows = []
    for row in read_quality(path):
        try:
            model = own.get(row.model.lower()) or catalogue.model(row.model).name
            rows.append(row._replace(model=model, quantization=catalogue.scheme(row.quantization).name))
        except CatalogueError as error:
            raise CatalogueError(f"{path}: {error}") from None
    return rows


def _row(assumption: QualityAssumption) -> QualityRow:
    mean = assumption.mean
    return QualityRow(
        catalogue.model(assumption.model).name,
        catalogue.scheme(assumption.quantization).name,
        assumption.request_class,
        mean,
        mean if assumption.low is None else assumption.low,
        mean if assumption.high is None else assumption.high,
        assumption.note,
        assumed=True,
    )


def _scores(models: Iterable[str]) -> Iterator[QualityRow]:
    """Published scores, one row for each request class that the metric stands for."""
    for row in catalogue.accuracy_rows():
        if row.unit == "score" and row.model in models:
            for request_class in catalogue.request_classes(row.metric):
                source = f"{row.metric}: {row.source}"
                yield QualityRow(row.model, row.scheme, request_class, row.value, row.value, row.value, source)


def _recovered(models: Iterable[str], known: TableQuality) -> Iterator[QualityRow]:
    """Published recoveries of the same variant and class together, times the quality of the model in bf16."""
    recoveries: dict[tuple[str, str, str], list[AccuracyRow]] = {}
    for row in catalogue.accuracy_rows():
        if row.unit == "recovery" and row.model in models:
            for request_class in catalogue.request_classes(row.metric):
                recoveries.setdefault((row.model, row.scheme, request_class), []).append(row)
    for (model, scheme, request_class), rows in recoveries.items():
        base = known.find(Named(model, BASE_SCHEME), request_class)
        if base is not None:
            factors = [row.value for row in rows]
            mean = sum(factors) / len(factors)
            yield QualityRow(
                model,
                scheme,
                request_class,
                min(1.0, base.mean * mean),
                min(1.0, base.low * min(factors)),
                min(1.0, base.high * max(factors)),
                f"{mean:.1%} of {BASE_SCHEME} by {_evidence(rows)}; {BASE_SCHEME}: {base.source}",
                base.assumed,
            )


def _evidence(rows: Sequence[AccuracyRow]) -> str:
    metrics = dict.fromkeys(row.metric for row in rows)
    sources = dict.fromkeys(row.source for row in rows)
    return f"{', '.join(metrics)} ({', '.join(sources)})"
