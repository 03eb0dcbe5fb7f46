"""What the cases of accuracy.py share: a measured number beside its prediction, and Markdown tables of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.hardware.calibration_file import find_calibration, load_calibration, shipped
from simroute.hardware.roofline import RooflineStepTime
from simroute.rng import stream

INTERVAL = 0.9


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number and its prediction, with the replicates that drawn step times give.

    `target` is relative; `roofline` is what step times from datasheets alone predict; `ends` are those of an interval
    that is known already.
    """

    name: str
    measured: float
    predicted: float
    replicates: tuple[float, ...] = ()
    target: float | None = None
    roofline: float = float("nan")
    ends: tuple[float, float] | None = None

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1

    @property
    def interval(self) -> tuple[float, float]:
        """The middle of the replicates."""
        if self.ends is not None:
            return self.ends
        low, high = np.quantile(self.replicates, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]).tolist()
        return low, high

    @property
    def has_interval(self) -> bool:
        """Whether there is one."""
        return bool(self.replicates) or self.ends is not None

    @property
    def held(self) -> bool:
        """Whether the interval holds the measured number."""
        low, high = self.interval
        return bool(low <= self.measured <= high)


def shipped_calibration(
    model: str, scheme: str, gpu: str, tensor_parallel: int = 1, kv_cache_dtype: str = "auto"
) -> Calibration:
    """The one that comes with simroute."""
    path = find_calibration(shipped(), model, scheme, gpu, tensor_parallel, kv_cache_dtype)
    if path is None:
        raise FileNotFoundError(f"no shipped calibration of {model} {scheme} on {tensor_parallel} x {gpu}")
    return load_calibration(path)


def roofline_of(calibration: Calibration) -> RooflineStepTime:
    """The estimate from datasheets for what `calibration` was made for."""
    model, scheme = catalogue.model(calibration.model), catalogue.scheme(calibration.scheme)
    return RooflineStepTime(
        model,
        scheme,
        catalogue.gpu(calibration.gpu),
        calibration.tensor_parallel,
        kv_cache_dtype=calibration.kv_cache_dtype,
    )


def replicates(calibration: Calibration, draws: int, name: str) -> Iterator[Calibration]:
    """`draws` calibrations that are as likely as this one."""
    for number in range(draws):
        yield calibration.drawn(stream(0, "accuracy", name, number))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table: names to the left, numbers to the right."""
    print(f"| {' | '.join(header)} |")
    print(f"|---|{'--:|' * (len(header) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
