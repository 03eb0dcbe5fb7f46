"""How much more traffic the chosen fleet bears: the factor on the arrival rate at which a promise breaks.

Imports, of the planner, evaluate and frontier.
"""

from __future__ import annotations

from typing import Any

from simroute.planner.answer.frontier import phrase
from simroute.planner.fleets.evaluate import Candidate, Evaluator, Verdict

FIRST = (1.05, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Factors tried until one breaks."""
CLOSE = 1.02
"""Bisection ends where the factor that breaks is within so much of one that holds."""


def headroom(evaluator: Evaluator, best: Candidate) -> dict[str, Any] | None:
    """The largest factor found that holds, the first that breaks and what breaks there; None where it was stopped."""
    holds, breaks, broken = 1.0, None, None
    for factor in FIRST:
        verdict = _asked(evaluator, best, factor)
        if verdict is None:
            return None
        if not verdict.meets:
            breaks, broken = factor, verdict
            break
        holds = factor
    while breaks is not None and breaks / holds > CLOSE:
        factor = round((holds * breaks) ** 0.5, 4)
        verdict = _asked(evaluator, best, factor)
        if verdict is None:
            return None
        if verdict.meets:
            holds = factor
        else:
            breaks, broken = factor, verdict
    if breaks is None or broken is None:
        return {"rate_scale": holds, "breaks_at": None, "text": f"holds at {holds:g} times the traffic, the most tried"}
    what = ", ".join(dict.fromkeys(phrase(check) for check in broken.violations)) or broken.error
    text = f"holds up to {holds:.3g} times the traffic; at {breaks:.3g} times {what} breaks"
    return {"rate_scale": holds, "breaks_at": breaks, "text": text}


def _asked(evaluator: Evaluator, best: Candidate, factor: float) -> Verdict | None:
    return evaluator.ask([best], factor)[0]
