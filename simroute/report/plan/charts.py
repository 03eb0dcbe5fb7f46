"""A plan's charts as plotly figures: cost against p99, latency against load, a day, what the answer is sensitive to.

The last three are drawn where the document has them. `curve`: a list of points with `rate_scale`, `ttft_p99_s`,
`tpot_p99_s`, `e2e_p99_s`, `slo_attainment`, `gpu_busy`, `kv_usage`, `stability` and, if
limits differ by class, the p99s also `by_class`. `timeline`: `t_s`,
`arrivals_rps`, and `pools` by name with `busy`, `kv_usage` and `replicas`, all as long as `t_s`. `sensitivity`: a list
of `factor`, `low` and `high`, the latter two with `label`, `cost_usd_per_month` (null where no fleet is left) and
`fleet`. Imports the report's other files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from simroute.report.charts import PALETTE, POOL_PALETTE, Chart, figure, time_unit
from simroute.report.plan.frontier import (
    GREY,
    METRICS,
    MONEY,
    STAR,
    UNITS,
    class_limits,
    frontiers,
    latency_axis,
    limits,
    line,
    safe,
)
from simroute.report.plan.words import Document, by_reach
from simroute.report.text import usd

_SHARES = {"tickformat": ".0%", "range": [0, 1.12], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
_LABEL_SHARE = 0.22
"""Of a chart's width on a phone: what the longest label of a line takes."""


def charts(document: Document) -> list[Chart]:
    """Every chart that the document has the data for, in the order of the page."""
    return [*frontiers(document), *_curves(document), *_day(document), *_tornado(document)]


def _curves(document: Document) -> Iterator[Chart]:
    points = document.get("curve") or ()
    if not points:
        return
    scale = [point["rate_scale"] for point in points]
    knee = (document.get("headroom") or {}).get("rate_scale")
    shapes = load_marks(points, knee)
    note = f"holds up to {knee:.3g} times the traffic" if knee is not None else ""
    xaxis = {"ticksuffix": "x", "tickformat": "~g", "tickangle": 0}
    for metric, name in METRICS:
        factor, unit = UNITS[metric]
        drawn_lines = list(_lines(document, points, metric))
        known = [value for each in drawn_lines for value in each.y if value is not None]
        aimed = [factor * limit for limit in limits(document, metric)]
        if known and (aimed or metric == "ttft"):
            marks = [*shapes, *(line("y", at, colour=each.limit_colour) for each in drawn_lines for at in each.limits)]
            traces = [_curve(each.name, scale, each.y, each.colour, f"%{{y:.3~g}} {unit}") for each in drawn_lines]
            yaxis = latency_axis(metric, [*known, *aimed])
            layout = {
                "xaxis": xaxis,
                "yaxis": yaxis,
                "shapes": marks,
                "showlegend": drawn_lines[0].limit_colour != GREY,
            }
            yield Chart("load", f"curve_{metric}", f"p99 {name}", note, figure(traces, layout))
            note = ""
    shares = [("within targets", "slo_attainment", PALETTE[2]), ("KV cache in use, p99", "kv_usage", PALETTE[4])]
    shares.append(("GPU busy", "gpu_busy", PALETTE[5]))
    traces = [_curve(n, scale, [p.get(key) for p in points], shade, "%{y:.1%}") for n, key, shade in shares]
    layout = {"xaxis": xaxis, "yaxis": _SHARES, "shapes": shapes, "showlegend": True}
    yield Chart("load", "curve_shares", "Within targets, and how full it is", "", figure(traces, layout))


class _Line(NamedTuple):
    """A p99 at each of the curve's points, and what it may be at most, both in the chart's unit."""

    name: str
    y: list[float | None]
    limits: list[float]
    colour: str = PALETTE[0]
    limit_colour: str = GREY


def _lines(document: Document, points: Sequence[Mapping[str, Any]], metric: str) -> Iterator[_Line]:
    """The p99 of all requests, or where limits differ by class, of each class that has one."""
    factor, _ = UNITS[metric]

    def scaled(parts: Iterable[Mapping[str, Any]]) -> list[float | None]:
        found = [part.get(f"{metric}_p99_s") for part in parts]
        return [None if p99_s is None else factor * p99_s for p99_s in found]

    own = class_limits(document, metric)
    if len(set(own.values())) < 2 or not all(point.get("by_class") for point in points):
        yield _Line(f"p99 {metric.upper()}", scaled(points), [factor * limit for limit in limits(document, metric)])
        return
    for number, (name, limit) in enumerate(own.items()):
        if limit is not None:
            shade = PALETTE[number % len(PALETTE)]
            y = scaled([point["by_class"].get(name) or {} for point in points])
            yield _Line(safe(str(name)), y, [factor * limit], shade, shade)


def load_marks(points: Sequence[Mapping[str, Any]], knee: float | None, now: str = "planned") -> list[dict[str, Any]]:
    """The traffic as it is (labelled `now`), the most that holds, and where the fleet is overloaded."""
    side, end = _beside([point["rate_scale"] for point in points], knee)
    marks = [line("x", 1.0, now, side=side, end=end)]
    if knee is not None and knee != 1:
        marks.append(line("x", knee, "holds", STAR))
    lost = [point["rate_scale"] for point in points if point.get("stability") == "OVERLOADED"]
    if lost:
        sound = [point["rate_scale"] for point in points if point["rate_scale"] < min(lost)]
        start = (max(sound) + min(lost)) / 2 if sound else min(lost)
        marks.append(_shade(start, max(lost) + (min(lost) - start)))
    return marks


def _beside(scale: Sequence[float], knee: float | None) -> tuple[str, str]:
    """Where the label of the line at 1 is neither cut off nor on that of the knee: its anchor, and the line's end."""
    room = _LABEL_SHARE * (max(scale) - min(scale))
    if 1.0 - min(scale) >= room:
        return "right", "top"
    return "left", "bottom" if knee is not None and 1.0 < knee < 1.0 + room else "top"


def _curve(name: str, x: Sequence[float], y: Sequence[float | None], colour: str, hover: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2.4},
        "marker": {"size": 6},
        "hovertemplate": f"<b>{name}</b><br>%{{x:.3~g}} times the traffic: {hover}<extra></extra>",
    }


def _day(document: Document) -> Iterator[Chart]:
    of = document.get("timeline") or {}
    if not of.get("t_s"):
        return
    unit_s, unit = time_unit(of["t_s"][-1])
    t = [each / unit_s for each in of["t_s"]]
    xaxis = {"ticksuffix": f" {unit}", "tickformat": "~g", "tickangle": 0, "nticks": 5, "range": [0, t[-1]]}
    layout: dict[str, Any] = {"xaxis": xaxis, "yaxis": _SHARES, "showlegend": True}
    for key, title in (("kv_usage", "KV cache in use, by pool"), ("busy", "GPU busy, by pool")):
        traces = [
            _series(str(name), t, pool.get(key) or (), POOL_PALETTE[i % len(POOL_PALETTE)], "%{y:.1%}", unit)
            for i, (name, pool) in enumerate(of["pools"].items())
        ]
        yield Chart("day", key, title, "", figure(traces, layout))
    if of.get("arrivals_rps"):
        # A range of its own: plotly's search for margins and a range together may never settle on a narrow screen.
        layout = {"xaxis": xaxis, "yaxis": {"tickformat": ",~g", "range": [0, 1.1 * max(of["arrivals_rps"]) or 1.0]}}
        trace = _series("requests a second", t, of["arrivals_rps"], PALETTE[0], "%{y:,.3~g} a second", unit)
        yield Chart("day", "arrivals", "Requests a second", "", figure([trace], layout))
    if any(len(set(pool.get("replicas") or ())) > 1 for pool in of["pools"].values()):
        traces = [
            _series(
                str(name),
                t,
                pool.get("replicas") or (),
                POOL_PALETTE[i % len(POOL_PALETTE)],
                "%{y:,.0f} replicas",
                unit,
            )
            for i, (name, pool) in enumerate(of["pools"].items())
        ]
        most = max(max(pool.get("replicas") or (0,)) for pool in of["pools"].values())
        layout = {"xaxis": xaxis, "yaxis": {"tickformat": ",~g", "range": [0, most + 1]}, "showlegend": True}
        yield Chart("day", "replicas", "Replicas, by pool", "", figure(traces, layout))


def _series(
    name: str, t: Sequence[float], y: Sequence[float | None], colour: str, hover: str, unit: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": safe(name),
        "x": list(t),
        "y": list(y),
        "line": {"color": colour, "width": 2},
        "hovertemplate": f"<b>{safe(name)}</b><br>%{{x:.3~g}} {unit}: {hover}<extra></extra>",
    }


def _tornado(document: Document) -> Iterator[Chart]:
    """How the cheapest plan's cost moves with each assumption, the one that moves it most on top."""
    plan, found = document.get("best"), document.get("sensitivity") or ()
    if plan is None or not found:
        return
    base = plan["cost_usd_per_month"]
    ordered = by_reach(document)[::-1]  # (plotly counts from below)
    names = [_factor(entry) for entry in ordered]
    traces = [_bars(ordered, names, end, base, shade) for end, shade in (("low", PALETTE[0]), ("high", PALETTE[1]))]
    layout = {
        "barmode": "overlay",
        "bargap": 0.4,
        "xaxis": MONEY | {"nticks": 4},
        "yaxis": {"ticksuffix": "  ", "range": [-0.6, len(ordered) - 0.1]},
        "shapes": [line("x", base, "the plan")],
    }
    yield Chart("sensitivity", "tornado", "Cost of the cheapest plan, USD a month", "", figure(traces, layout))


def _factor(entry: Mapping[str, Any]) -> str:
    """A factor with both its values, and which of them no fleet can serve."""
    ends = []
    for end in ("low", "high"):
        cost = entry[end]["cost_usd_per_month"]
        ends.append(f"{entry[end]['label']}{'' if cost is not None else ': no fleet'}")
    return f"{safe(str(entry['factor']))}<br>{safe(' … '.join(ends))}"


def _bars(
    entries: Sequence[Mapping[str, Any]], names: Sequence[str], end: str, base: float, colour: str
) -> dict[str, Any]:
    costs = [entry[end]["cost_usd_per_month"] for entry in entries]
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(names),
        "base": [base] * len(costs),
        "x": [None if cost is None else cost - base for cost in costs],
        "marker": {"color": colour},
        "text": [_hover(entry[end]) for entry in entries],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def _hover(end: Mapping[str, Any]) -> str:
    what = safe(str(end.get("fleet") or ""))
    return f"{safe(str(end['label']))}: {usd(end['cost_usd_per_month'])} a month<br>{what}".removesuffix("<br>")


def _shade(start: float, end: float) -> dict[str, Any]:
    """Where the fleet is overloaded."""
    area = {"type": "rect", "x0": start, "x1": end, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return area | {"fillcolor": "#c94a4a", "opacity": 0.12, "line": {"width": 0}}
