"""Every fleet up to a bill that no bound rules out, and how far such a list is complete. Owns `Listing`, `below`.

Imports, of this room, bounds and candidates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Fleet, Space

MOST_LISTED = 20_000
"""Fleets listed at most."""
MOST_LOOKED_AT = 100_000
"""Mixed fleets of three or four variants that the bounds are asked about at most."""
_LESS = 0.6
"""Where a list is too long, one up to so much of the bill is made instead."""
_EQUAL = 1 + 1e-9


class Listing(NamedTuple):
    """Fleets that no bound or limit rules out, cheapest first; below `covered_usd_per_month` there are no others."""

    fleets: list[Fleet]
    covered_usd_per_month: float


def below(space: Space, bounds: Bounds, usd_per_month: float) -> Listing:
    """The fleets that cost at most `usd_per_month`: all of them, or as far as they are not too many."""
    prices = [option.usd_per_month for option in space.options]
    limit, covered = min(usd_per_month, max(prices) * space.spec.fleets.most_replicas), usd_per_month
    while (found := _listed(space, bounds, limit * _EQUAL)) is None:
        limit = covered = limit * _LESS
        if limit < min((price for price in prices if price), default=math.inf):  # (too many that cost nothing)
            return Listing([], 0.0)
    return Listing(sorted(found, key=lambda fleet: (space.usd_per_month(fleet), fleet)), covered)


def _listed(space: Space, bounds: Bounds, limit: float) -> list[Fleet] | None:
    """All of them; None where they are too many."""
    found: list[Fleet] = []
    looked_at = 0
    for size in range(1, space.spec.fleets.most_variants + 1):
        for options in itertools.combinations(range(len(space.options)), size):
            if bounds.variants_refused(options) is not None:
                continue
            for fleet in _counted(space, bounds, options, limit):
                looked_at += size > 2
                if space.refusal(fleet) is None and bounds.refusal(fleet) is None:
                    found.append(fleet)
                if len(found) > MOST_LISTED or looked_at > MOST_LOOKED_AT:
                    return None
    return found


def _counted(space: Space, bounds: Bounds, options: Sequence[int], limit: float) -> Iterator[Fleet]:
    """Fleets of just these options up to this bill; of two options, those that the bounds do not rule out whole."""
    if len(options) != 2:
        yield from _within(space, options, limit, space.spec.fleets.most_replicas)
        return
    first, second = (space.options[option] for option in options)
    counts = np.arange(first.replicas.min, first.replicas.max + 1)
    least = np.maximum(bounds.least_beside(options[0], counts, options[1]), second.replicas.min)
    for count, start in zip(counts.tolist(), least.tolist(), strict=True):
        for beside in range(start, second.replicas.max + 1):
            if count * first.usd_per_month + beside * second.usd_per_month > limit:
                break
            yield (options[0], count), (options[1], beside)


def _within(space: Space, options: Sequence[int], limit: float, replicas: int) -> Iterator[Fleet]:
    """Fleets of just these options with at most so many replicas for at most `limit`."""
    if not options:
        yield ()
        return
    option = space.options[options[0]]
    for count in range(option.replicas.min, min(option.replicas.max, replicas) + 1):
        left = limit - count * option.usd_per_month
        if left < 0:
            return
        for rest in _within(space, options[1:], left, replicas - count):
            yield ((options[0], count), *rest)
