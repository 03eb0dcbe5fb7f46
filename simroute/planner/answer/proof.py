"""What stands behind the best plan: how much more traffic it bears, its day, and what its cost hangs on.

Imports, of the planner, curve, evaluate, headroom, search and sensitivity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simroute.planner.answer.curve import curve
from simroute.planner.answer.headroom import headroom
from simroute.planner.answer.sensitivity import sensitivity
from simroute.planner.fleets.evaluate import Verdict
from simroute.planner.fleets.search import Search, Stages

PROOF = ("headroom", "curve", "timeline", "sensitivity")
"""Its parts in plan.json: null where there is no plan."""


def proof(search: Search, best: Verdict, others: Sequence[Verdict], progress: Stages) -> dict[str, Any]:
    """All of `PROOF`, and `notes`; `others` are the runner-up and the frontier. A stop leaves out what is not done."""
    evaluator = search.evaluator
    before = evaluator.stopped
    progress(0.0, "headroom")
    room = headroom(evaluator, best.candidate)
    progress(0.2, "latency against load")
    points = curve(evaluator, best.candidate, room["breaks_at"] if room else None)
    hangs, notes = sensitivity(search, best, others, lambda done: progress(0.35 + 0.65 * done, "sensitivity"))
    if evaluator.stopped and not before:
        notes = ["interrupted: the answer is complete, what would change it is not"]
    own = evaluator.whole(best.candidate).get(1.0, {})
    return {"headroom": room, "curve": points, "timeline": own.get("timeline"), "sensitivity": hangs, "notes": notes}
