"""The HTML report: one file that needs nothing else, no network included. Imports results; jinja2 and plotly inside.

`templates/` holds the page, its style and its script; this module decides what is said, the template where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from simroute.report import cells
from simroute.report.charts import charts, colours
from simroute.report.fleet import fleet_charts, lived
from simroute.report.inputs import ReportInput
from simroute.report.text import (
    collected_notes,
    count,
    estimates,
    interval,
    milliseconds,
    number,
    percent,
    replicated,
    traffic,
    usd,
)
from simroute.results.compare import Summary, answer, rank
from simroute.results.intervals import value_at


def render(data: ReportInput) -> str:
    """The whole page as text; the same input gives the same page."""
    return page("report.html.j2", _context(data))


def page(template: str, context: Mapping[str, Any]) -> str:
    """A template of this room, filled in; it is given plotly as well."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("simroute.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(context, plotly_js=get_plotlyjs())


def _context(data: ReportInput) -> dict[str, Any]:
    summaries = data.summaries
    ranked = rank(summaries, data.target)
    changes = lived(ranked), fleet_charts(data)
    drawn = [*charts(data), *changes[1]]
    return {
        "scenario": data.scenario,
        "description": data.description,
        "answer": answer(summaries, data.target),
        "badges": _badges(summaries),
        "tiles": _tiles(ranked[0]) if ranked else [],
        "target": f"{100 * data.target:g}%",
        "targets": {name: str(slo) for name, slo in data.slo.items()},
        "replicated": replicated(summaries),
        "comparison": cells.comparison(ranked, data.target),
        "by_class": [
            cells.attainment_by_class(ranked, data.target),
            cells.quality_by_class(ranked, data.target),
            *cells.tenants(ranked, data.target),
        ],
        "lived": changes[0],
        "living": any(changes),
        "pools": [cells.pools(summary) for summary in ranked],
        "charts": drawn,
        "figures": {chart.key: chart.figure for chart in drawn},
        "legend": colours([summary["policy"] for summary in summaries]),
        "notes": collected_notes(summaries, data.notes),
        "assumptions": data.assumptions,
        "manifest": json.dumps(data.manifest, indent=2, ensure_ascii=False),
        "traffic": _traffic(data),
    }


def _badges(summaries: list[Summary]) -> list[cells.Cell]:
    """What qualifies every number on the page, at its top."""
    badges = []
    if any(summary["interrupted"] for summary in summaries):
        badges.append(cells.Cell("interrupted: partial results", "bad"))
    if said := estimates(summaries):
        badges.append(cells.Cell(f"estimated: {said}", "warn"))
    if any(summary["extrapolated"] for summary in summaries):
        badges.append(cells.Cell("extrapolated: some load lies beyond what was measured, see the notes", "warn"))
    if any(summary["extrapolated_month"] for summary in summaries):
        badges.append(cells.Cell("month extrapolated from less than a week of traffic", ""))
    return badges


def _tiles(best: Summary) -> list[tuple[str, str, str]]:
    """The best policy in six numbers: (name, value, interval)."""

    def tile(title: str, form: Callable[[float | None], str], name: str, unit: str = "") -> tuple[str, str, str]:
        return title, _with_unit(form(value_at(best, name)), unit), interval(form, best, name)

    return [
        tile("USD a month", usd, "cost_usd_per_month"),
        tile("within targets", percent, "slo_attainment"),
        tile("p99 TTFT", number, "ttft_s.p99", " s"),
        tile("p99 TPOT", milliseconds, "tpot_s.p99", " ms"),
        tile("expected quality", number, "quality.mean"),
        ("GPUs", _gpus(best["by_pool"]), ""),
    ]


def _gpus(pools: Mapping[str, Any]) -> str:
    """GPUs by kind: `3 H100 + 4 L40S`; means where pools change, nothing for other people's endpoints."""
    kinds: dict[str, float] = {}
    for pool in pools.values():
        if pool["gpus"]:
            kinds[pool["gpu"]] = kinds.get(pool["gpu"], 0) + pool["gpus"]
    return " + ".join(f"{count(gpus)} {gpu}" for gpu, gpus in kinds.items())


def _with_unit(text: str, unit: str) -> str:
    return f"{text}{unit}" if text != number(None) else text


def _traffic(data: ReportInput) -> str:
    """What was replayed, in one sentence; empty when nothing was."""
    if not data.results:
        return ""
    run = data.results[0][1]
    return f"{traffic(data.traces, run)}, seed {run.seed}"
