"""k steps that only decode, in closed form. Owns `Stretch`; imports nothing of simroute."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple


class Stretch(NamedTuple):
    """`steps` steps, the first taking `first_s`, each next one `growth_s` more; the step before ends at `base_s`.

    Step j of the stretch is scheduled at point j: point 0 is `start_s`, point j is where step j-1 ends (`lag` 0) or,
    under async scheduling, where step j-2 ends (`lag` 1).
    """

    start_s: float
    base_s: float
    steps: int
    first_s: float
    growth_s: float
    lag: int

    def point_s(self, point: int) -> float:
        """When schedule point `point` is reached."""
        start_s, base_s, _, first_s, growth_s, lag = self
        if point == 0:
            return start_s
        steps = point - lag
        return base_s + steps * (first_s + growth_s * 0.5 * (steps - 1))

    def next_point(self, now_s: float) -> int:
        """The first schedule point at or after `now_s`; as many steps have been scheduled before `now_s`."""
        start_s, base_s, _, first_s, growth_s, lag = self
        if now_s <= start_s:
            return 0
        elapsed_s = now_s - base_s
        if elapsed_s <= 0:
            return 1
        # elapsed = k (linear + half k), solved for k; then corrected for rounding
        half = growth_s * 0.5
        linear = first_s - half
        steps = int(2 * elapsed_s / (linear + sqrt(linear * linear + 4 * half * elapsed_s)))
        return steps + lag if steps * (linear + half * steps) >= elapsed_s else steps + lag + 1
