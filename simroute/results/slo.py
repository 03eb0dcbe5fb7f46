"""Latency targets and which requests meet them. Owns `Slo`; imports only `results.latency` and workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simroute.results.latency import Latencies
from simroute.workload.columns import DEFAULT_NAME


@dataclass(frozen=True, slots=True)
class Slo:
    """Targets for one request, in seconds; None asks nothing. A request meets the SLO when it meets every target."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def met(self, latencies: Latencies) -> NDArray[np.bool_]:
        """Which requests completed within every target, shape (requests,).

        As in `vllm bench serve`, an answer of one token has no TPOT and meets any TPOT target. So does one that comes
        in one piece: whoever waits for all of it is served by targets on TTFT and E2E.
        """
        met = ~np.isnan(latencies.e2e_s)
        with np.errstate(invalid="ignore"):
            if self.ttft_s is not None:
                met &= latencies.ttft_s <= self.ttft_s
            if self.tpot_s is not None:
                met &= ~(latencies.tpot_s > self.tpot_s)
            if self.e2e_s is not None:
                met &= latencies.e2e_s <= self.e2e_s
        return met

    def __str__(self) -> str:
        targets = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2E", self.e2e_s))
        return ", ".join(f"{name} ≤ {limit_s:g} s" for name, limit_s in targets if limit_s is not None) or "none"


def slo_for(slo: Mapping[str, Slo], request_class: str) -> Slo:
    """The targets of a class: its own, else those of `default`, else none at all."""
    return slo.get(request_class) or slo.get(DEFAULT_NAME) or Slo()
