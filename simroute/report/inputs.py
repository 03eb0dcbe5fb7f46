"""What a report is made from. Imports only results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simroute.results.compare import TARGET_ATTAINMENT, Summary
from simroute.results.run import FleetRun
from simroute.results.slo import Slo


@dataclass(frozen=True, slots=True)
class ReportInput:
    """One scenario's results under every policy, in the scenario's order.

    `results` pairs each policy's summary (`results.metrics.summarise`) with its run. `assumptions` are sentences about
    what was assumed rather than measured or published; `notes` say what happened on the way (rows of a trace skipped).
    `traces` names the files that were replayed. `manifest` is shown as it is.
    """

    scenario: str
    results: Sequence[tuple[Summary, FleetRun]]
    slo: Mapping[str, Slo]
    assumptions: Sequence[str] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    traces: Sequence[str] = ()
    notes: Sequence[str] = ()
    target: float = TARGET_ATTAINMENT

    @property
    def summaries(self) -> list[Summary]:
        """The summaries alone."""
        return [summary for summary, _ in self.results]
