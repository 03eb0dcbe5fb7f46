"""The report's charts as plotly figures, without colours of paper and ink: the page sets those, light or dark.

Imports results; plotly is imported in `charts` alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simroute.report.inputs import ReportInput
from simroute.report.series import Curve, Floats, Load, cdf, load
from simroute.results.compare import Summary, rank
from simroute.results.latency import Latencies, latencies
from simroute.results.slo import Slo

PALETTE = ("#3f7fe0", "#e0702a", "#2f9f72", "#c94a86", "#8b67d6", "#b58a00", "#2a9fb8", "#8a8f98")
"""Told apart on white and on near black, and by most colour-blind readers."""
POOL_PALETTE = ("#5573b8", "#d09a3f", "#6aa87c", "#a9699a", "#7f8c99", "#b8705a")

_LATENCIES = (("ttft", "Time to first token"), ("tpot", "Time per output token"), ("e2e", "End-to-end latency"))
_LOADS = (
    ("running", "Requests being served"),
    ("waiting", "Requests waiting in engines"),
    ("kv_usage", "KV cache in use"),
)
_FEW_DECADES = 2.2
_LONGEST_DRAIN = 1.5
"""Load is drawn up to this multiple of the traffic's length, lest one drowning policy squeeze all others together."""


class Chart(NamedTuple):
    """One figure of the page: `section` groups it, `note` stands beside its title, `figure` is plotly's JSON."""

    section: str
    key: str
    title: str
    note: str
    figure: dict[str, Any]


class TimeAxis(NamedTuple):
    """The time axis that the charts of a run's load share: its unit, its layout, and what it leaves out."""

    unit_s: float
    unit: str
    layout: dict[str, Any]
    note: str

    def hover(self, value: str) -> str:
        """The text of a point: its time, and `value` in plotly's notation."""
        return f"%{{x:.3~g}} {self.unit}: {value}"


def time_axis(data: ReportInput) -> TimeAxis:
    """From 0 to the end of the longest run, or to a multiple of the traffic's length where one drowns for long."""
    end_s = max((float(run.timeline.t_s.max(initial=0.0)) for _, run in data.results), default=0.0)
    known = [run.arrival_s[np.isfinite(run.arrival_s)] for _, run in data.results]
    traffic_s = max((float(arrival_s.max(initial=0.0)) for arrival_s in known), default=0.0)
    shown_s = min(end_s, _LONGEST_DRAIN * traffic_s) or end_s
    unit_s, unit = time_unit(shown_s)
    note = f"first {shown_s / unit_s:.3g} of {end_s / unit_s:.3g} {unit}" if shown_s < end_s else ""
    return TimeAxis(unit_s, unit, {"xaxis": {"ticksuffix": f" {unit}", "range": [0, shown_s / unit_s]}}, note)


def colours(policies: Sequence[str]) -> dict[str, str]:
    """A colour for each policy, in the scenario's order."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(policies)}


def charts(data: ReportInput) -> list[Chart]:
    """Every chart of the report, in the order of the page."""
    return [*_cdfs(data), *_loads(data), *_bars(data)]


def _cdfs(data: ReportInput) -> Iterator[Chart]:
    times = [latencies(run) for _, run in data.results]
    arrived = [summary["requests"]["arrived"] for summary in data.summaries]
    for key, title in _LATENCIES:
        curves = [cdf(_column(t, key), n) for t, n in zip(times, arrived, strict=True)]
        targets = _targets(data.slo, key)
        layout = {
            "xaxis": log_axis([*(x for curve in curves if len(curve.x) for x in (curve.x[0], curve.x[-1])), *targets]),
            "yaxis": {"tickformat": ".0%", "range": [0, 1.01]},
            "shapes": [_target_line(limit_s) for limit_s in targets],
        }
        note = f"targets: {', '.join(f'{limit_s:g}' for limit_s in targets)} s" if targets else ""
        yield Chart("latency", key, title, note, lines(data, curves, layout, "%{x:.3~g} s: %{y:.1%}"))


def _loads(data: ReportInput) -> Iterator[Chart]:
    loads = [load(run) for _, run in data.results]
    axis = time_axis(data)
    for key, title in _LOADS:
        curves = [Curve(each.t_s / axis.unit_s, _samples(each, key)) for each in loads]
        layout = axis.layout | {"yaxis": {"rangemode": "tozero", "tickformat": ".0%" if key == "kv_usage" else ",~g"}}
        value = "%{y:.1%}" if key == "kv_usage" else "%{y:,.0f}"
        yield Chart("load", key, title, axis.note, lines(data, curves, layout, axis.hover(value)))


def _bars(data: ReportInput) -> Iterator[Chart]:
    summaries = data.summaries
    if not summaries:
        return
    # The same bill under every policy is drawn once.
    bills = {json.dumps(_by_pool(s, "cost_usd_per_month")) for s in summaries}
    names = ["all policies"] if len(bills) == 1 else [s["policy"] for s in summaries]
    layout: dict[str, Any] = {"xaxis": {"tickprefix": "$", "tickformat": "~s"}}
    shown = summaries[: len(names)]
    stacked = _stacked(shown, names, "cost_usd_per_month", layout, "$%{x:,.0f} a month")
    yield Chart("cost", "cost", "Cost by pool", "USD a month", stacked)
    layout = {"xaxis": {"tickformat": ".0%", "range": [0, 1], "dtick": 0.25}}
    policies = [s["policy"] for s in summaries]
    stacked = _stacked(summaries, policies, "requests_share", layout, "%{x:.1%} of requests")
    yield Chart("cost", "share", "Which pool answered", "share of requests", stacked)


def lines(
    data: ReportInput,
    curves: Sequence[Curve],
    layout: Mapping[str, Any],
    hover: str,
    *,
    shape: str = "linear",
    more: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """One line a policy, the best one drawn last and thicker; `more` are plotly's traces drawn over them."""
    ranked = [summary["policy"] for summary in rank(data.summaries, data.target)]
    shades = colours([summary["policy"] for summary in data.summaries])
    of_policy = dict(zip(shades, curves, strict=True))
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": policy,
            "x": of_policy[policy].x.astype(np.float32),
            "y": of_policy[policy].y.astype(np.float32),
            "line": {"color": shades[policy], "width": 3 if policy == ranked[0] else 1.6, "shape": shape},
            "hovertemplate": f"<b>{policy}</b><br>{hover}<extra></extra>",
        }
        for policy in reversed(ranked)
    ]
    return figure([*traces, *more], layout)


def _stacked(
    summaries: Sequence[Summary], names: Sequence[str], key: str, layout: dict[str, Any], hover: str
) -> dict[str, Any]:
    """One horizontal bar a summary, stacked from its pools."""
    pools = list(dict.fromkeys(pool for summary in summaries for pool in summary["by_pool"]))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": pool,
            "y": list(names),
            "x": [_by_pool(summary, key).get(pool) or 0.0 for summary in summaries],
            "marker": {"color": POOL_PALETTE[i % len(POOL_PALETTE)]},
            "hovertemplate": f"<b>{pool}</b><br>{hover}<extra></extra>",
        }
        for i, pool in enumerate(pools)
    ]
    fixed = {"barmode": "stack", "showlegend": True, "yaxis": {"autorange": "reversed"}}
    return figure(traces, layout | fixed | {"bargap": 0.35 if len(names) > 1 else 0.7})


def figure(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> dict[str, Any]:
    """A figure as plotly's JSON: checked by plotly, without its default theme, which the page replaces."""
    import plotly.graph_objects as go

    base = {"template": go.layout.Template(), "showlegend": False, "margin": {"l": 8, "r": 12, "t": 8, "b": 8}}
    drawn = go.Figure(data=list(traces), layout=base | dict(layout))
    drawn.update_xaxes(automargin=True)
    drawn.update_yaxes(automargin=True)
    decoded: dict[str, Any] = json.loads(drawn.to_json())
    return decoded


def _column(times: Latencies, key: str) -> Floats:
    column: Floats = getattr(times, f"{key}_s")
    return column


def _samples(of: Load, key: str) -> Floats:
    samples: Floats = getattr(of, key)
    return samples


def _targets(slo: Mapping[str, Slo], key: str) -> list[float]:
    """The distinct targets for one latency, over all classes."""
    limits: set[float | None] = {getattr(each, f"{key}_s") for each in slo.values()}
    return sorted(limit for limit in limits if limit is not None)


def _target_line(limit_s: float) -> dict[str, Any]:
    line = {"color": "#8a8f98", "width": 1, "dash": "dash"}
    return {"type": "line", "x0": limit_s, "x1": limit_s, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def log_axis(seconds: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis over these values, labelled at 1, 2, 5 of each decade, at decades alone where many.

    Where that labels fewer than two places, it is labelled at every first, or second, digit.
    """
    positive = [value for value in seconds if value > 0] or [1.0]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    margin = 0.03 * (high - low) + 0.02
    decades = range(math.floor(low - margin), math.ceil(high + margin) + 1)
    finer = ((1.0, 2.0, 5.0), [float(m) for m in range(1, 10)], [m / 10 for m in range(10, 100)])
    for mantissas in finer if high - low <= _FEW_DECADES else ((1.0,),):
        ticks = [m * 10.0**e for e in decades for m in mantissas]
        if sum(low - margin <= math.log10(tick) <= high + margin for tick in ticks) > 1:
            break
    return {
        "type": "log",
        "range": [low - margin, high + margin],
        "tickvals": ticks,
        "ticktext": [f"{tick:g} s" for tick in ticks],
    }


def time_unit(duration_s: float) -> tuple[float, str]:
    """The unit of the time axis: (seconds, name)."""
    return (3600.0, "h") if duration_s > 7200 else (60.0, "min") if duration_s > 180 else (1.0, "s")


def _by_pool(summary: Summary, key: str) -> dict[str, float | None]:
    return {name: pool[key] for name, pool in summary["by_pool"].items()}
