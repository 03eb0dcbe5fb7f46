"""A plan as one HTML file that needs nothing else: the answer, what to buy, what it rests on, what would change it.

Imports the report's other files; jinja2 and plotly inside.
"""

from __future__ import annotations

import json
from typing import Any

from simroute.report.html import page
from simroute.report.plan import cells, words
from simroute.report.plan.charts import charts
from simroute.report.plan.frontier import qualities, quality_gradient
from simroute.report.plan.words import Document
from simroute.report.text import number

_SHORTEST_REM = 9
_BAR_REM = 3.2


def render(document: Document) -> str:
    """The whole page as text; the same document gives the same page."""
    return page("plan.html.j2", _context(document))


def _context(document: Document) -> dict[str, Any]:
    plan, drawn = words.chosen(document), charts(document)
    return {
        "name": document["name"],
        "answer": document["answer"],
        "feasible": document["feasible"],
        "traffic": words.traffic(document),
        "tiles": cells.tiles(document),
        "badges": cells.badges(document),
        "relax": words.relaxations(document),
        "headroom": (document.get("headroom") or {}).get("text", ""),
        "policy": words.policy(plan) if plan else "",
        "options": json.dumps(plan["policy"].get("options") or {}, ensure_ascii=False) if plan else "{}",
        "buys": cells.buys(plan) if plan else None,
        "settings": cells.settings(plan) if plan else None,
        "constraints": cells.constraints(document),
        "alternatives": cells.alternatives(document),
        "refused": cells.refused(document),
        "hangs_on": cells.hangs_on(document),
        "accuracy": cells.accuracy(plan) if plan else None,
        "unfit": [f"{each['name']}: {each['reason']}" for each in document.get("unfit") or ()],
        "searched": words.searched(document),
        "assumptions": list(document.get("assumptions") or ()),
        "notes": list(document.get("notes") or ()),
        "seed": document.get("seed"),
        "manifest": json.dumps(made, indent=2, ensure_ascii=False) if (made := document.get("manifest")) else "",
        "charts": drawn,
        "qualities": [number(end) for end in qualities(document) or ()],
        "gradient": quality_gradient(),
        "sections": {chart.section for chart in drawn},
        "tornado": f"{_SHORTEST_REM + _BAR_REM * len(document.get('sensitivity') or ()):g}rem",
        "figures": {chart.key: chart.figure for chart in drawn},
    }
