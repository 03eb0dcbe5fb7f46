"""A what-if's charts as plotly figures: latency against load, how far each change carries, what it costs.

Imports the report's other files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simroute.report.charts import PALETTE, Chart, figure
from simroute.report.plan.charts import load_marks
from simroute.report.plan.frontier import METRICS, MONEY, UNITS, latency_axis, line, safe
from simroute.report.text import usd
from simroute.report.whatif import cells
from simroute.report.whatif.cells import Document

_GOOD, _BAD, _BASE, _MORE = PALETTE[2], "#c94a4a", PALETTE[0], PALETTE[1]
_SHARES = {"tickformat": ".0%", "range": [0, 1.12], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
_LOAD = {"tickprefix": "x", "tickformat": "~g", "tickangle": 0}
_LABEL = 24
"""Letters of a label in a line; phones are narrow."""
_LABEL_LINES = 3


def charts(document: Document) -> list[Chart]:
    """Every chart that there are numbers for, in the order of the page."""
    return [*_reach(document), *_costs(document), *_curves(document)]


def _reach(document: Document) -> Iterator[Chart]:
    """How far each row holds, the scenario as it is on top."""
    rows = [row for row in document["variations"] if row["holds_to"] or row["breaks_at"]]
    if not rows:
        return
    reach = [row["holds_to"] or 0.0 for row in rows]
    text = [_ends(row) for row in rows]
    shades = [
        _BASE if row is document["variations"][0] else _GOOD if (row["holds_to"] or 0) >= 1 else _BAD for row in rows
    ]
    trace = _bars("holds to", reach, shades) | {"text": text, "textposition": "outside", "cliponaxis": False}
    trace["hovertemplate"] = [
        f"<b>{safe(row['name'])}</b><br>{said}<extra></extra>" for row, said in zip(rows, text, strict=True)
    ]
    most = max(*reach, 1.0)
    layout = {"xaxis": _LOAD | {"range": [0, 1.35 * most], "nticks": 6}, "yaxis": _names(rows)}
    marks = {"shapes": [line("x", 1.0, "today")], "bargap": 0.4}
    yield Chart(
        "reach", "reach", "Highest traffic within all targets", "times today's", figure([trace], layout | marks)
    )


def _ends(row: Mapping[str, Any]) -> str:
    if row["holds_to"] is None:
        return f"misses them at {cells.times(row['breaks_at'])}"
    return cells.times(row["holds_to"]) + ("" if row["breaks_at"] else " or more")


def _costs(document: Document) -> Iterator[Chart]:
    """What each row costs, and what has to be added so that it bears today's traffic."""
    rows = [row for row in document["variations"] if cells.today(row)]
    if not rows:
        return
    now = [cells.today(row)["cost_usd_per_month"] for row in rows]
    more = [row["buy"]["usd_per_month"] if row["buy"] else 0.0 for row in rows]
    traces = [_bars("the fleet", now, _BASE)]
    if any(more):
        traces.append(_bars("to buy for today's traffic", more, _MORE))
    totals = [usd(cost + added) for cost, added in zip(now, more, strict=True)]
    traces[-1] |= {"text": totals, "textposition": "outside", "cliponaxis": False}
    for trace in traces:
        trace["hovertemplate"] = f"<b>{trace['name']}</b>: $%{{x:,.0f}} a month<extra></extra>"
    most = max(cost + added for cost, added in zip(now, more, strict=True))
    layout = {
        "xaxis": MONEY | {"range": [0, 1.35 * most or 1.0], "nticks": 5},
        "yaxis": _names(rows),
        "barmode": "stack",
        "bargap": 0.4,
        "shapes": [line("x", now[0], "now")],
        "showlegend": len(traces) > 1,
    }
    yield Chart("costs", "costs", "Cost at today's traffic", "USD a month", figure(traces, layout))


def _bars(name: str, x: Sequence[float], colour: Any) -> dict[str, Any]:
    """Horizontal bars by place: two rows may have one name."""
    marker = {"color": colour}
    return {"type": "bar", "orientation": "h", "name": name, "x": list(x), "y": list(range(len(x))), "marker": marker}


def _names(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ticks = {"tickvals": list(range(len(rows))), "ticktext": [_wrapped(str(row["name"])) for row in rows]}
    room_for_marks = [len(rows) - 0.5, -1.1]
    return ticks | {"range": room_for_marks, "ticksuffix": "  ", "zeroline": False, "showgrid": False}


def _wrapped(name: str) -> str:
    """A name over several lines, broken between words and within paths."""
    lines = [""]
    for piece in re.findall(r"\s*[^\s.=]+[.=]*|\s*[.=]+", name):
        if lines[-1] and len(lines[-1] + piece) > _LABEL:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.strip()
    if len(lines) > _LABEL_LINES:
        lines = [*lines[: _LABEL_LINES - 1], f"{lines[_LABEL_LINES - 1]} …"]
    return "<br>".join(safe(line[: 2 * _LABEL]) for line in lines)


def _curves(document: Document) -> Iterator[Chart]:
    """The scenario as it is against load: the p99 of each latency that has a target, class by class, then shares."""
    base = document["variations"][0]
    points = sorted((cell for cell in base["cells"] if "headlines" in cell), key=lambda cell: float(cell["rate"]))
    if len(points) < 2:
        return
    stated = [{"rate_scale": cell["rate"], "stability": cell["stability"]} for cell in points]
    marks = load_marks(stated, base["holds_to"], "today")
    for metric, name in METRICS:
        series = _by_class(document, points, metric)
        known = [y for _, values, _ in series for y in values if y is not None]
        if not known:
            continue
        aimed = [limit for _, _, limit in series if limit is not None]
        traces = [
            _curve(who, points, values, PALETTE[i % len(PALETTE)], f"%{{y:.3~g}} {UNITS[metric][1]}")
            for i, (who, values, _) in enumerate(series)
        ]
        shapes = [*marks, *(line("y", limit) for limit in dict.fromkeys(aimed))]
        layout = {"xaxis": _LOAD, "yaxis": latency_axis(metric, [*known, *aimed]), "shapes": shapes}
        unit = UNITS[metric][1]
        note = f"targets: {', '.join(f'{limit:g}' for limit in sorted(set(aimed)))} {unit}" if aimed else "no target"
        drawn = figure(traces, layout | {"showlegend": len(traces) > 1})
        yield Chart("load", f"curve_{metric}", f"p99 {name}", note, drawn)
    shares = (("within targets", "slo_attainment", PALETTE[2]), ("GPU busy", "gpu_busy", PALETTE[5]))
    traces = [_curve(n, points, [p["headlines"][key] for p in points], c, "%{y:.1%}") for n, key, c in shares]
    drawn = figure(traces, {"xaxis": _LOAD, "yaxis": _SHARES, "shapes": marks, "showlegend": True})
    yield Chart("load", "curve_shares", "Within targets, and GPU busy", "", drawn)


def _by_class(
    document: Document, points: Sequence[Mapping[str, Any]], metric: str
) -> list[tuple[str, list[float | None], float | None]]:
    """(class, p99 at every rate, target), in the chart's unit, of classes with a target; else all, for TTFT alone."""
    factor, _ = UNITS[metric]
    slo = document["slo"]

    def scaled(values: Sequence[float | None]) -> list[float | None]:
        return [None if value is None else factor * value for value in values]

    found = []
    for name in dict.fromkeys(name for point in points for name in point["by_class"]):
        limit_s = (slo.get(name) or slo.get("default") or {}).get(f"{metric}_s")
        if limit_s is not None:
            values = scaled([point["by_class"].get(name, {}).get(f"{metric}_p99_s") for point in points])
            found.append((str(name), values, factor * limit_s))
    if not found and metric == METRICS[0][0]:
        return [("all requests", scaled([point["headlines"][f"{metric}_p99_s"] for point in points]), None)]
    return found


def _curve(
    name: str, points: Sequence[Mapping[str, Any]], y: Sequence[float | None], colour: str, hover: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": safe(name),
        "x": [point["rate"] for point in points],
        "y": list(y),
        "line": {"color": colour, "width": 2.2},
        "marker": {"size": 6},
        "hovertemplate": f"<b>{safe(name)}</b><br>%{{x:.3~g}} times the traffic: {hover}<extra></extra>",
    }
