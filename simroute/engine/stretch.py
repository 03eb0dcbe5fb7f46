"""k steps that only decode, in closed form. Owns `Stretch`; imports nothing of simroute."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass(slots=True)
class Stretch:
    """`steps` steps that follow one that ends at `base_s`; the first k of them take k * (linear_s + k * half_s).

    So the first takes linear_s + half_s, and each next one 2 * half_s more. Step j is scheduled at point j: point 0 is
    `start_s`, point j is where step j-1 ends (`lag` 0) or, under async scheduling, where step j-2 ends (`lag` 1).
    """

    start_s: float
    base_s: float
    steps: int
    linear_s: float
    half_s: float
    lag: int

    def point_s(self, point: int) -> float:
        """When schedule point number `point` is."""
        steps = point - self.lag
        return self.start_s if not point else self.base_s + steps * (self.linear_s + self.half_s * steps)

    def next_point(self, now_s: float) -> tuple[int, float]:
        """The first schedule point at or after `now_s`, with its time; as many steps were scheduled before `now_s`."""
        if now_s <= self.start_s:
            return 0, self.start_s
        base_s, linear_s, half_s, lag = self.base_s, self.linear_s, self.half_s, self.lag
        elapsed_s = now_s - base_s
        if elapsed_s <= 0:
            return 1, base_s if lag else base_s + linear_s + half_s
        # elapsed = k (linear + half k), solved for k and rounded up, then corrected where the root was rounded
        k = int(2 * elapsed_s / (linear_s + sqrt(linear_s * linear_s + 4 * half_s * elapsed_s)))
        passed_s = k * (linear_s + half_s * k)
        if passed_s < elapsed_s:
            k += 1
            passed_s = k * (linear_s + half_s * k)
        return k + lag, base_s + passed_s
