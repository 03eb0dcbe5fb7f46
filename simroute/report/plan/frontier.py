"""Cost against p99 latency: every fleet of a plan as a mark, coloured by quality. Imports the report's other files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simroute.report.charts import PALETTE, Chart, figure, log_axis
from simroute.report.plan.words import Document, Plan, broken, fleet, policy
from simroute.report.text import milliseconds, number, percent, usd

METRICS = (("ttft", "time to first token"), ("tpot", "time per output token"), ("e2e", "end-to-end latency"))
UNITS = {"ttft": (1.0, "s"), "tpot": (1e3, "ms"), "e2e": (1.0, "s")}
"""What a second is multiplied by to be drawn, and the unit that it is then in."""
GREY = "#8a8f98"
STAR = "#e0702a"
_QUALITY = ((0.0, "#8b67d6"), (0.5, "#2a9fb8"), (1.0, "#b58a00"))
"""Told apart from each other and from paper and ink, in light and dark."""
MONEY = {"tickprefix": "$", "tickformat": "~s", "nticks": 6, "tickangle": 0}
_ALIKE = 1e-6
_WIDE = 20.0
"""A latency axis over more than this ratio is logarithmic."""


def class_limits(document: Document, metric: str) -> dict[str, float | None]:
    """The limit of each class, in seconds: of its p99, or else of its requests; None where it has none."""
    parts = {name: (each.get("p99") or {}, each.get("slo") or {}) for name, each in (document.get("slo") or {}).items()}
    key = f"{metric}_s"
    return {name: slo.get(key) if p99.get(key) is None else p99[key] for name, (p99, slo) in parts.items()}


def limits(document: Document, metric: str) -> list[float]:
    """The distinct limits, in seconds, of the p99 of a metric over all classes; of requests, where there are none."""
    wanted = list((document.get("slo") or {}).values())
    for part in ("p99", "slo"):
        found = {(each.get(part) or {}).get(f"{metric}_s") for each in wanted}
        if known := sorted(limit for limit in found if limit is not None):
            return known
    return []


def qualities(document: Document) -> tuple[float, float] | None:
    """The least and the largest quality of the plans that meet every target; None where it tells none apart."""
    known = [plan["headlines"]["quality_mean"] for plan in _plans(document) if plan["meets"]]
    if not known or None in known or max(known) - min(known) < _ALIKE:
        return None
    return min(known), max(known)


def quality_gradient() -> str:
    """The scale of qualities as CSS colours, least first."""
    return ", ".join(colour for _, colour in _QUALITY)


def frontiers(document: Document) -> Iterator[Chart]:
    """A chart for every latency that has a limit, at least that of the first token."""
    plans = _plans(document)
    for metric, name in METRICS:
        aimed = limits(document, metric)
        known = [plan for plan in plans if plan["headlines"].get(f"{metric}_p99_s") is not None]
        if known and (aimed or metric == "ttft"):
            hidden = len(plans) - len(known)
            note = f"{hidden} not drawn: overloaded, or not replayed whole" if hidden and metric == "ttft" else ""
            drawn = _frontier(document, known, metric, aimed)
            yield Chart("frontier", f"frontier_{metric}", f"p99 {name}", note, drawn)


def _plans(document: Document) -> list[Plan]:
    """Every plan of the document, once."""
    plans = [document.get(key) for key in ("best", "runner_up", "nearest")]
    plans += [*(document.get("frontier") or ()), *(document.get("evaluated") or ())]
    return list({plan["id"]: plan for plan in reversed(plans) if plan is not None}.values())


def _frontier(document: Document, plans: Sequence[Plan], metric: str, aimed: Sequence[float]) -> dict[str, Any]:
    factor, _ = UNITS[metric]
    drawn = [(plan, factor * plan["headlines"][f"{metric}_p99_s"]) for plan in plans]
    meeting = [each for each in drawn if each[0]["meets"]]
    missing = [each for each in drawn if not each[0]["meets"]]
    chosen = document.get("best") or document.get("nearest")
    traces = [
        _points(missing, {"symbol": "circle-open", "size": 7, "color": GREY}),
        _envelope(meeting),
        _points(meeting, _by_quality(document, meeting)),
        _points(
            [each for each in drawn if chosen is not None and each[0]["id"] == chosen["id"]],
            {"symbol": "star", "size": 17, "color": STAR, "line": {"color": "#ffffff", "width": 1}},
        ),
    ]
    values = [*(y for _, y in drawn), *(factor * limit for limit in aimed)]
    traces[-1]["cliponaxis"] = False
    layout = {
        "xaxis": MONEY | _spread([plan["cost_usd_per_month"] for plan, _ in drawn]),
        "yaxis": latency_axis(metric, values),
        "shapes": [line("y", factor * limit) for limit in aimed],
    }
    return figure(traces, layout)


def _spread(costs: Sequence[float]) -> dict[str, Any]:
    """A range for costs that lie so near each other that an axis of their own would count in cents."""
    low, high = min(costs), max(costs)
    return {"range": [0.8 * low, 1.2 * high]} if 0 < high < 1.1 * low else {}


def latency_axis(metric: str, values: Sequence[float]) -> dict[str, Any]:
    """From zero, or logarithmic where values lie far apart."""
    _, unit = UNITS[metric]
    if unit == "s" and max(values) > _WIDE * max(min(values), 1e-9):
        return log_axis(values)
    return {"range": [0, 1.08 * max(values)], "ticksuffix": f" {unit}", "tickformat": "~g"}


def _points(drawn: Sequence[tuple[Plan, float]], marker: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [plan["cost_usd_per_month"] for plan, _ in drawn],
        "y": [y for _, y in drawn],
        "marker": dict(marker),
        "text": [_told(plan) for plan, _ in drawn],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _told(plan: Plan) -> str:
    """What a mark says of its plan."""
    head = plan["headlines"]
    lines = [
        f"<b>{safe(fleet(plan))}</b>",
        f"{safe(policy(plan))}, {usd(plan['cost_usd_per_month'])} a month",
        f"p99 TTFT {number(head['ttft_p99_s'])} s, TPOT {milliseconds(head['tpot_p99_s'])} ms",
        f"{percent(head['slo_attainment'])} within targets, quality {number(head['quality_mean'])}",
    ]
    return "<br>".join([*lines, safe(broken(plan))] if not plan["meets"] else lines)


def safe(text: str) -> str:
    """plotly reads a few tags in labels."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _by_quality(document: Document, drawn: Sequence[tuple[Plan, float]]) -> dict[str, Any]:
    """Marks coloured by quality, where it tells plans apart."""
    ends = qualities(document)
    if ends is None:
        return {"size": 11, "color": PALETTE[0]}
    known = [plan["headlines"]["quality_mean"] for plan, _ in drawn]
    return {"size": 11, "color": known, "colorscale": [*map(list, _QUALITY)], "cmin": ends[0], "cmax": ends[1]}


def _envelope(drawn: Sequence[tuple[Plan, float]]) -> dict[str, Any]:
    """The least p99 that each amount of money buys, as steps."""
    x: list[float] = []
    y: list[float] = []
    for cost, value in sorted((plan["cost_usd_per_month"], value) for plan, value in drawn):
        if not y or value < y[-1]:
            x.append(cost)
            y.append(value)
    line = {"color": GREY, "width": 1.5, "shape": "hv"}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"}


def line(
    axis: str, at: float, label: str = "", colour: str = GREY, side: str = "left", end: str = "top"
) -> dict[str, Any]:
    """A dashed line across the chart, at `at` on an axis, with a label at its `end`, which starts or ends there."""
    other = "y" if axis == "x" else "x"
    shape: dict[str, Any] = {"type": "line", f"{axis}0": at, f"{axis}1": at, f"{other}ref": "paper"}
    shape |= {f"{other}0": 0, f"{other}1": 1, "line": {"color": colour, "width": 1.2, "dash": "dash"}}
    if label:
        font = {"size": 11}  # (in the page's ink: a line's colour is too faint for letters)
        place = {"textposition": "end" if end == "top" else "start", "textangle": 0, "padding": 3}
        place |= {"xanchor": side, "yanchor": end}
        shape["label"] = {"text": label, "font": font, **place}
    return shape
