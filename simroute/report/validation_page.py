"""A calibration's validation as one HTML file that needs nothing else: distributions and load, measured and predicted.

Imports results and the report's other files; jinja2 inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from simroute.report.charts import PALETTE, Chart, figure, log_axis, time_unit
from simroute.report.html import page
from simroute.report.series import POINTS, Curve, Floats, cdf
from simroute.report.validation import Document, grid, remarks, title, verdict
from simroute.results.latency import latencies
from simroute.results.run import FleetRun, Status

COLOURS = dict(zip(("measured", "predicted"), PALETTE, strict=False))
_LATENCIES = (("ttft_s", "Time to first token"), ("tpot_s", "Time per output token"), ("e2e_s", "End-to-end latency"))


class Pair(NamedTuple):
    """One load phase twice: the same requests, as measured and as predicted."""

    measured: FleetRun
    predicted: FleetRun


def render(document: Document, pairs: Mapping[str, Pair]) -> str:
    """The whole page as text; `pairs` holds the runs of every phase of `document`, by name."""
    charts = [chart for name, pair in pairs.items() for chart in _charts(name, pair)]
    replicated = bool(document["replicates"])
    return page(
        "validation.html.j2",
        {
            "title": title(document),
            "verdict": verdict(document),
            "tables": {name: grid(name, summary, replicated) for name, summary in document["phases"].items()},
            "charts": charts,
            "figures": {chart.key: chart.figure for chart in charts},
            "legend": COLOURS,
            "remarks": remarks(document),
            "engine": document["engine"],
        },
    )


def _charts(name: str, pair: Pair) -> Iterator[Chart]:
    for key, heading in _LATENCIES:
        curves = [_distribution(run, key) for run in pair]
        layout = {
            "xaxis": log_axis([x for curve in curves if len(curve.x) for x in (curve.x[0], curve.x[-1])]),
            "yaxis": {"tickformat": ".0%", "range": [0, 1.01]},
        }
        yield Chart(name, f"{name} {key}", heading, "", _lines(curves, layout, "%{x:.3~g} s: %{y:.1%}"))
    unit_s, unit = time_unit(max(run.end_s for run in pair))
    counts = [_counted(run, unit_s) for run in pair]
    layout = {"xaxis": {"ticksuffix": f" {unit}"}, "yaxis": {"rangemode": "tozero", "tickformat": ",~g"}}
    for place, key, heading in ((0, "waiting", "Requests without a token"), (1, "answered", "Requests being answered")):
        curves = [each[place] for each in counts]
        yield Chart(name, f"{name} {key}", heading, "", _lines(curves, layout, f"%{{x:.3~g}} {unit}: %{{y:,.0f}}"))


def _distribution(run: FleetRun, key: str) -> Curve:
    values: Floats = getattr(latencies(run), key)
    known = values[~np.isnan(values)]
    return cdf(known, max(len(known), 1))


def _counted(run: FleetRun, unit_s: float) -> tuple[Curve, Curve]:
    """Requests that wait for their first token, and those between first and last token, over time.

    Counted from the requests themselves, so that both sides are counted alike.
    """
    done = run.status == Status.COMPLETED
    arrival_s, first_s, last_s = (np.sort(t[done]) for t in (run.trace.arrival_s, run.first_token_s, run.finish_s))
    t_s = np.linspace(0.0, run.end_s, POINTS)
    arrived, begun, finished = (
        np.searchsorted(times, t_s, side="right").astype(np.float64) for times in (arrival_s, first_s, last_s)
    )
    return Curve(t_s / unit_s, arrived - begun), Curve(t_s / unit_s, begun - finished)


def _lines(curves: list[Curve], layout: dict[str, Any], hover: str) -> dict[str, Any]:
    """Measured as a broad line, predicted as a thin one on top."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": curve.x.astype(np.float32),
            "y": curve.y.astype(np.float32),
            "line": {"color": colour, "width": width},
            "hovertemplate": f"<b>{name}</b><br>{hover}<extra></extra>",
        }
        for (name, colour), curve, width in zip(COLOURS.items(), curves, (4.0, 1.6), strict=True)
    ]
    return figure(traces, layout)
