"""A comparison of policies as one HTML file that needs nothing else: every difference with its interval in one figure.

Imports results and the report's other files; jinja2 and plotly inside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from simroute.report import compare
from simroute.report.charts import Chart, colours, figure
from simroute.report.compare import HEADLINES, Document
from simroute.report.html import page

_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_LEAST = 0.01
"""Ratios are drawn down to this: a logarithmic axis has no zero."""
_WIDE = 30.0
"""Ratios over more than this are labelled at decades alone, for phones are narrow."""
_SPREAD = 0.6
"""Of the unit between two numbers, how much the policies' marks take up."""


class _Mark(NamedTuple):
    """One difference as a ratio to the baseline: where it stands, its interval and what is said of it."""

    y: float
    ratio: float
    low: float
    high: float
    verdict: str
    text: str


def render(document: Document) -> str:
    """The whole page as text; the same document gives the same page."""
    chart = _chart(document)
    return page(
        "compare.html.j2",
        {
            "scenario": document["scenario"],
            "answer": document["answer"],
            "traffic": f"{document['worlds']} worlds beside the trace, seed {document['seed']}",
            "places": compare.places(document),
            "differences": compare.differences(document),
            "decisions": compare.decisions(document),
            "groups": list(compare.groups(document)),
            "baseline": document["baseline"],
            "legend": _legend(document),
            "charts": [chart],
            "height": f"{4 + 3 * len(HEADLINES)}rem",
            "figures": {chart.key: chart.figure},
            "explained": compare.explained(document),
            "notes": compare.notes(document),
            "manifest": json.dumps(document["manifest"], indent=2, ensure_ascii=False),
        },
    )


def _legend(document: Document) -> dict[str, str]:
    return colours(list(document["differences"]))


def _chart(document: Document) -> Chart:
    """Every policy's numbers as ratios to the baseline's, with intervals; noise is drawn hollow."""
    names = list(HEADLINES)
    shades = _legend(document)
    traces, ends = [], [1.0]
    for place, (label, found) in enumerate(document["differences"].items()):
        offset = _SPREAD * ((place + 0.5) / len(shades) - 0.5)
        marks = list(_marks(found, names, offset))
        traces.append(_trace(label, shades[label], marks))
        ends += [end for mark in marks for end in (mark.low, mark.high)]
    ticks = [tick for tick in _TICKS if max(ends) < _WIDE * min(ends) or f"{tick:g}".strip("0.") == "1"]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}x" for tick in ticks], "tickangle": 0}
    rows = {"tickvals": list(range(len(names))), "ticktext": [shown.label for shown in HEADLINES.values()]}
    layout = {
        "xaxis": axis,
        "yaxis": rows | {"range": [len(names) - 0.5, -0.5]},
        "shapes": [{"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": "#8a8f98"}}],
    }
    return Chart("differences", "differences", "Ratio to the baseline", "", figure(traces, layout))


def _marks(found: Mapping[str, Any], names: list[str], offset: float) -> Iterator[_Mark]:
    """The marks of one policy; a number without a mean, or with a baseline of 0, has none."""
    for place, name in enumerate(names):
        entry, base = found[name], found[name]["baseline_mean"]
        if entry["mean"] is None or not base:
            continue
        ratio, low, high = (_ratio(entry[end], entry["mean"], base) for end in ("mean", "low", "high"))
        yield _Mark(place + offset, ratio, low, high, entry["verdict"], f"{HEADLINES[name].label}: {entry['verdict']}")


def _ratio(change: float | None, mean: float, base: float) -> float:
    return max(1 + (mean if change is None else change) / base, _LEAST)


def _trace(label: str, shade: str, marks: list[_Mark]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label,
        "x": [mark.ratio for mark in marks],
        "y": [mark.y for mark in marks],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [mark.high - mark.ratio for mark in marks],
            "arrayminus": [mark.ratio - mark.low for mark in marks],
            "color": shade,
            "thickness": 1.6,
        },
        "marker": {
            "color": shade,
            "size": 9,
            "symbol": ["circle-open" if mark.verdict == "noise" else "circle" for mark in marks],
        },
        "text": [mark.text for mark in marks],
        "hovertemplate": f"<b>{label}</b><br>%{{text}}<br>%{{x:.3~g}} of the baseline<extra></extra>",
    }
