"""A what-if as one HTML file that needs nothing else: the answer, the matrix, what it costs, what to buy, what breaks.

Imports the report's other files; jinja2 and plotly inside.
"""

from __future__ import annotations

import json
from typing import Any

from simroute.report.html import page
from simroute.report.whatif import cells
from simroute.report.whatif.cells import Document
from simroute.report.whatif.charts import charts
from simroute.report.whatif.text import STAR, traffic

_SHORTEST_REM = 5.0
_BAR_REM = 3.0


def render(document: Document) -> str:
    """The whole page as text; the same document gives the same page."""
    return page("whatif.html.j2", _context(document))


def _context(document: Document) -> dict[str, Any]:
    drawn = charts(document)
    base, buy = document["variations"][0], document["buy"]
    holds = cells.today(base).get("meets")
    return {
        "name": document["scenario"],
        "answer": document["sentences"][0],
        "more": document["sentences"][1:],
        "misses": holds is False,
        "traffic": traffic(document),
        "seed": document["seed"],
        "precision": f"{100 * document['precision']:g}%",
        "target": f"{100 * document['target_attainment']:g}%",
        "tiles": cells.tiles(document),
        "badges": cells.badges(document),
        "matrix": cells.matrix(document, STAR),
        "star": STAR,
        "costs": cells.costs(document),
        "buy": buy["text"] if buy else "",
        "bought": cells.bought(document),
        "mended": cells.mended(document),
        "by_rate": cells.by_rate(document, STAR),
        "breaks": cells.breaks(document, every=True),
        "impossible": cells.impossible(document),
        "notes": cells.notes(document),
        "assumptions": list(document["assumptions"]),
        "manifest": json.dumps(document["manifest"], indent=2, ensure_ascii=False),
        "charts": drawn,
        "overloads": any(cell.get("stability") == "OVERLOADED" for cell in base["cells"]),
        "sections": {chart.section for chart in drawn},
        "bars": f"{_SHORTEST_REM + _BAR_REM * len(document['variations']):g}rem",
        "figures": {chart.key: chart.figure for chart in drawn},
    }
