"""A plan's charts for a notebook: those of its page, drawn by the same code. Imports errors; report where it draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simroute.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LATENCIES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class Plots:
    """Charts of one document of plan.json, each a plotly Figure.

    Raises UsageError for a chart that the document has nothing for.
    """

    document: Mapping[str, Any]

    def frontier(self, latency: str = "ttft") -> Figure:
        """Cost against the p99 of a latency (`ttft`, `tpot` or `e2e`): every fleet that was simulated whole."""
        return self._drawn(f"frontier_{latency}")

    def curve(self, latency: str = "ttft") -> Figure:
        """The p99 of a latency of the best plan against load."""
        return self._drawn(f"curve_{latency}")

    def day(self, what: str = "kv_usage") -> Figure:
        """The best plan while its traffic runs: `busy`, `kv_usage` or `arrivals`."""
        return self._drawn(what)

    def sensitivity(self) -> Figure:
        """What the cheapest plan would cost if one thing were otherwise."""
        return self._drawn("tornado")

    def _drawn(self, key: str) -> Figure:
        import plotly.graph_objects as go
        import plotly.io

        from simroute.report.plan.charts import charts

        found = {chart.key: chart for chart in charts(self.document)}
        if key not in found:
            raise UsageError(f"plot: this plan has no chart {key}; it has {', '.join(found) or 'none'}")
        chart = found[key]
        figure = go.Figure(chart.figure)
        margin = {"l": 60, "r": 20, "t": 50, "b": 40}
        return figure.update_layout(template=plotly.io.templates.default, title=chart.title, margin=margin)
