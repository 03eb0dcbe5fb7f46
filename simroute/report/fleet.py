"""What the report shows of a fleet that lives: replicas that come and go, what went wrong, held and repeated requests.

Nothing at all of a fleet in which nothing changes. Imports results and, of the report, charts, cells, series and text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simroute.report.cells import Cell, Grid, Header
from simroute.report.charts import Chart, TimeAxis, colours, lines, time_axis
from simroute.report.inputs import ReportInput
from simroute.report.series import POINTS, Curve, Floats, arriving, held, ready, sending
from simroute.report.text import lives, percent, usd
from simroute.results.compare import Summary
from simroute.results.run import FleetRun


class Mark(NamedTuple):
    """How an event is drawn: plotly's symbol, the same as a character, and what it says."""

    symbol: str
    character: str
    says: str


MARKS = {
    "crash": Mark("x", "✖", "engine crashed"),
    "lost": Mark("triangle-down", "▼", "machine lost"),
    "notice": Mark("diamond", "◆", "notice of preemption"),
    "slow": Mark("square", "■", "slow"),
    "router": Mark("star", "★", "router restarted"),
}
"""Events that are drawn, by name; what an autoscaler orders and stops shows in the line itself."""
_REFERENCE = "#8a8f98"
_VISIBLE = 1.01
"""Attempts for each request, on average, from which on they are drawn."""


def lived(summaries: Sequence[Summary]) -> Grid | None:
    """What happened to the replicas over the run, one row a policy; None where nothing did."""
    if not any(map(lives, summaries)):
        return None
    names = ("starts", "crashed or lost", "ready of paid time", "without a replica", "most held", "tokens, USD a run")
    rows = [[Cell(str(summary["policy"])), *_lived(summary["fleet"])] for summary in summaries]
    return Grid("What happened to the replicas", [Header("policy"), *map(Header, names)], rows)


def _lived(fleet: Mapping[str, Any]) -> list[Cell]:
    without = fleet["without_replica_share"]
    return [
        Cell(f"{fleet['starts']:,}"),
        Cell(f"{fleet['crashes']:,}", "warn" if fleet["crashes"] else ""),
        Cell(percent(fleet["ready_share"]), "", fleet["ready_share"]),
        Cell(percent(without), "bad" if without else ""),
        Cell(f"{fleet['most_held']:,}"),
        Cell(usd(fleet["token_usd"])),
    ]


def fleet_charts(data: ReportInput) -> list[Chart]:
    """Ready replicas, requests held and attempts a second over time, each only where there is something to see."""
    axis = time_axis(data)
    return [*_ready(data, axis), *_held(data, axis), *_sending(data, axis)]


def _ready(data: ReportInput, axis: TimeAxis) -> Iterator[Chart]:
    curves = [ready(run) for _, run in data.results]
    changing = any(len(curve.y) and np.ptp(curve.y) for curve in curves)
    drawn = list(_marks(data, curves, axis))
    if not changing and not drawn:
        return
    seen = {event.what for _, run in data.results for event in run.events}
    legend = ", ".join(f"{mark.character} {mark.says}" for what, mark in MARKS.items() if what in seen)
    figure = _over_time(data, curves, axis, "%{y:,.0f} ready", shape="hv", more=drawn)
    yield Chart("fleet", "ready", "Replicas that take requests", _notes(axis.note, legend), figure)


def _held(data: ReportInput, axis: TimeAxis) -> Iterator[Chart]:
    curves = [held(run) for _, run in data.results]
    if any(curve.y.any() for curve in curves):
        figure = _over_time(data, curves, axis, "%{y:,.0f} held")
        yield Chart("fleet", "held", "Requests held by the gateway", axis.note, figure)


def _sending(data: ReportInput, axis: TimeAxis) -> Iterator[Chart]:
    """Attempts a second, and for comparison the requests that arrive: what lies between them is sent again."""
    if not any(map(_storms, data.summaries)):
        return
    curves = [sending(run) for _, run in data.results]
    figure = _over_time(data, curves, axis, "%{y:.3~g} a second", more=list(_arrivals(data, axis)))
    note = _notes(axis.note, "dotted: requests that arrive")
    yield Chart("fleet", "attempts", "Attempts sent to replicas a second", note, figure)


def _storms(summary: Summary) -> bool:
    """Whether so much is sent again that a chart shows it."""
    requests = summary["requests"]
    return bool(summary["attempts"] > _VISIBLE * (requests["arrived"] - requests["rejected"]))


def _over_time(
    data: ReportInput, curves: Sequence[Curve], axis: TimeAxis, value: str, **options: Any
) -> dict[str, Any]:
    scaled = [Curve(curve.x / axis.unit_s, curve.y) for curve in curves]
    layout = axis.layout | {"yaxis": {"rangemode": "tozero", "tickformat": ",~g"}}
    return lines(data, scaled, layout, axis.hover(value), **options)


def _marks(data: ReportInput, curves: Sequence[Curve], axis: TimeAxis) -> Iterator[dict[str, Any]]:
    """A plotly trace for each policy and kind of event, its marks on the policy's line."""
    shades = colours([summary["policy"] for summary in data.summaries])
    for (policy, shade), (_, run), curve in zip(shades.items(), data.results, curves, strict=True):
        for what, mark in MARKS.items():
            at_s, counts = _when(run, what)
            if not len(at_s):
                continue
            yield {
                "type": "scatter",
                "mode": "markers",
                "name": policy,
                "x": (at_s / axis.unit_s).astype(np.float32),
                "y": _height(curve, at_s).astype(np.float32),
                "customdata": counts,
                "marker": {"color": shade, "symbol": mark.symbol, "size": 11, "line": {"width": 1, "color": "#ffffff"}},
                "hovertemplate": f"<b>{policy}</b><br>{axis.hover(f'{mark.says} (%{{customdata}})')}<extra></extra>",
            }


def _when(run: FleetRun, what: str) -> tuple[Floats, list[int]]:
    """When events of this kind came, and how many at a time: those that one mark would hide are one mark."""
    at_s = np.array([event.at_s for event in run.events if event.what == what])
    if not len(at_s):
        return np.zeros(0), []
    place = np.floor(at_s / max(run.end_s, 1e-9) * POINTS)
    _, first, counts = np.unique(place, return_index=True, return_counts=True)
    return at_s[first], counts.tolist()


def _height(curve: Curve, at_s: Floats) -> Floats:
    """The line's height at these times; 0 where there is no line."""
    if not len(curve.x):
        return np.zeros(len(at_s))
    heights: Floats = curve.y[np.maximum(np.searchsorted(curve.x, at_s, side="right") - 1, 0)]
    return heights


def _arrivals(data: ReportInput, axis: TimeAxis) -> Iterator[dict[str, Any]]:
    """Dotted lines: one for all policies where the trace says when requests arrive, else one for each."""
    shades = colours([summary["policy"] for summary in data.summaries])
    fixed = all(run.sent_s is None for _, run in data.results)
    named = {"all policies": _REFERENCE} if fixed else shades
    for (name, shade), (_, run) in zip(named.items(), data.results, strict=False):
        curve = arriving(run)
        yield {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": (curve.x / axis.unit_s).astype(np.float32),
            "y": curve.y.astype(np.float32),
            "line": {"color": shade, "width": 1.6, "dash": "dot"},
            "hovertemplate": f"<b>{name}</b><br>{axis.hover('%{y:.3~g} arrive a second')}<extra></extra>",
        }


def _notes(*parts: str) -> str:
    return "; ".join(filter(None, parts))
