"""What to say when a policy goes wrong. Called on the error path only, so that a good policy pays nothing for it.

May import errors, policy.snapshot and workload.request.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from simroute.errors import SimulationError
from simroute.policy.snapshot import Decision
from simroute.workload.request import Request

_MOST_RANGES = 8


def policy_fault(
    policy: str, request: Request, got: object, ready: Iterable[int], *, method: str = "choose"
) -> SimulationError:
    """The error for a policy that raised `got` or returned it: which policy, for which request, what, what is ready.

    `ready` are the numbers of the replicas that take requests now, ascending. Raise the result `from` the exception,
    where there was one.
    """
    who = (
        f"policy {policy}: {method} of request {request.index} (class {request.request_class}, {request.arrival_s:g} s)"
    )
    if isinstance(got, BaseException):
        said = " ".join(str(got).split())
        what = f"raised {type(got).__name__}{f': {said}' if said else ''}{_place(got)}"
        return SimulationError(f"{who} {what}; ready are replicas {_ranges(ready)}")
    if not isinstance(got, tuple) or len(got) != len(Decision._fields):
        return SimulationError(f"{who} returned {got!r}, which is no Decision(replica, reason)")
    if isinstance(got[0], int) and got[0] < 0 and not isinstance(got[1], str):
        return SimulationError(f"{who} returned {got!r}, whose reason must be text, as in Decision(-1, 'too long')")
    return SimulationError(
        f"{who} returned replica {got[0]!r}, which takes no requests now; ready are replicas {_ranges(ready)}"
    )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers, runs of them short: `0-3, 7`."""
    shown = [f"{first}-{last}" if last > first else str(first) for first, last in _runs(numbers)]
    if len(shown) > _MOST_RANGES:
        shown[_MOST_RANGES:] = [f"and {len(shown) - _MOST_RANGES} more ranges"]
    return ", ".join(shown) or "none"


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = -2
    for number in numbers:
        if number != last + 1:
            if last >= 0:
                yield first, last
            first = number
        last = number
    if last >= 0:
        yield first, last
