"""k steps that only decode, in closed form. Owns `Stretch`; imports nothing of simroute."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass(slots=True)
class Stretch:
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
        if point == 0:
            return self.start_s
        steps = point - self.lag
        return self.base_s + steps * (self.first_s + self.growth_s * 0.5 * (steps - 1))

    def next_point(self, now_s: float) -> int:
        """The first schedule point at or after `now_s`; as many steps have been scheduled before `now_s`."""
        if now_s <= self.start_s:
            return 0
        elapsed_s = now_s - self.base_s
        if elapsed_s <= 0:
            return 1
        # elapsed = k (linear + half k), solved for k; then corrected for rounding
        half = self.growth_s / 2
        linear = self.first_s - half
        steps = int(2 * elapsed_s / (linear + sqrt(linear * linear + 4 * half * elapsed_s))) + 1
        if (steps - 1) * (linear + half * (steps - 1)) >= elapsed_s:
            steps -= 1
        return steps + self.lag
