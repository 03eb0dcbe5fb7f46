"""Mixed fleets that a linear model proposes: classes shared out among variants so that the bill is least.

The integer model (scipy's milp) takes the bounds' loads at a utilisation that real fleets reach. It proposes, and
decides nothing. Owns `proposals`, and `below`, which lists the mixed fleets that no bound rules out.
Imports, of this room, bounds and candidates; numpy, and scipy where it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from simroute.planner.bounds import Bounds
from simroute.planner.candidates import Fleet, Space

MOST_LISTED = 20_000
"""Mixed fleets listed at most."""
MOST_GRID = 3_000_000
"""Combinations of three or four variants looked at at most."""
_NODES = 2000


def proposals(space: Space, bounds: Bounds, utilisation: float, most: int) -> Iterator[Fleet]:
    """Up to `most` mixed fleets, each of other variants, by the model's bill; none where there is nothing to mix."""
    if space.spec.fleets.most_variants < 2 or len(space.options) < 2:
        return
    model = _Model(space, bounds, utilisation)
    for _ in range(most):
        fleet = model.solved()
        if fleet is None:
            return
        if len(fleet) > 1:
            yield fleet
        model.exclude(fleet)


class _Model:
    """min bill, over counts n (integers), use y (0 or 1) and shares x of each class, for each option.

    Every class is shared out whole; what a class makes on an option in a stretch fits its replicas' time at the
    utilisation; n = 0 where y = 0; y at most as many as a fleet may mix; quotas and sizes as the plan says.
    """

    def __init__(self, space: Space, bounds: Bounds, utilisation: float) -> None:
        self.space, self.options = space, len(space.options)
        self.classes = len(bounds.limits)
        self.width = self.options * (2 + self.classes)
        self.rows: list[tuple[np.ndarray, float, float]] = []
        self.cost = np.zeros(self.width)
        self.cost[: self.options] = [option.usd_per_month for option in space.options]
        self._sizes()
        self._shares(bounds)
        for stretch in bounds.stretches(range(self.options)):
            self._loads(bounds.seconds(range(self.options), stretch), stretch.length_s * utilisation)

    def solved(self) -> Fleet | None:
        """The best fleet that is left, or None."""
        from scipy.optimize import Bounds as Range
        from scipy.optimize import LinearConstraint, milp

        matrix, low, high = (np.array(part) for part in zip(*self.rows, strict=True))
        whole = np.zeros(self.width)
        whole[: 2 * self.options] = 1
        most = np.ones(self.width)
        most[: self.options] = [option.replicas.max for option in self.space.options]
        most[2 * self.options :] = self.usable.reshape(-1)
        found = milp(
            self.cost,
            constraints=LinearConstraint(matrix, low, high),
            integrality=whole,
            bounds=Range(np.zeros(self.width), most),
            options={"node_limit": _NODES, "mip_rel_gap": 1e-3},
        )
        if found.x is None:
            return None
        counts = np.rint(found.x[: self.options]).astype(int).tolist()
        return tuple((i, count) for i, count in enumerate(counts) if count)

    def exclude(self, fleet: Fleet) -> None:
        """From now on, some other set of variants."""
        row = np.zeros(self.width)
        row[self.options : 2 * self.options] = -1.0
        for option, _ in fleet:
            row[self.options + option] = 1.0
        self._add(row, -np.inf, len(fleet) - 1)

    def _add(self, row: np.ndarray, low: float, high: float) -> None:
        self.rows.append((row, low, high))

    def _sizes(self) -> None:
        n, spec = self.options, self.space.spec
        for i, option in enumerate(self.space.options):
            row = np.zeros(self.width)
            row[i], row[n + i] = 1.0, -option.replicas.max
            self._add(row, -np.inf, 0)
            row = np.zeros(self.width)
            row[i], row[n + i] = 1.0, -option.replicas.min
            self._add(row, 0, np.inf)
        used, all_replicas = np.zeros(self.width), np.zeros(self.width)
        used[n : 2 * n], all_replicas[:n] = 1.0, 1.0
        self._add(used, 2, spec.fleets.most_variants)
        self._add(all_replicas, 1, spec.fleets.most_replicas)
        for gpu in dict.fromkeys(option.gpu for option in self.space.options):
            quota = self.space.quota(gpu)
            if quota is not None:
                row = np.zeros(self.width)
                row[:n] = [option.gpus if option.gpu == gpu else 0 for option in self.space.options]
                self._add(row, 0, quota)
        if spec.budget_usd_per_month is not None:
            self._add(self.cost.copy(), 0, spec.budget_usd_per_month)

    def _shares(self, bounds: Bounds) -> None:
        """Each class whole, over the options that reach its floor and answer in time when idle."""
        able = np.array(
            [[bounds.serves(i, c) for c in range(self.classes)] for i in range(self.options)], dtype=np.float64
        )
        able[:, ~able.any(axis=0)] = 1.0
        self.usable = able
        for c in range(self.classes):
            row = np.zeros(self.width)
            row[2 * self.options + np.arange(self.options) * self.classes + c] = 1.0
            self._add(row, 1, 1)

    def _loads(self, seconds: np.ndarray, capacity_s: float) -> None:
        by_class = np.where(np.isfinite(seconds), seconds, 0.0).reshape(self.options, self.classes, -1).sum(axis=2)
        for i in range(self.options):
            row = np.zeros(self.width)
            start = 2 * self.options + i * self.classes
            row[start : start + self.classes] = by_class[i]
            row[i] = -capacity_s
            self._add(row, -np.inf, 0)


def below(space: Space, bounds: Bounds, usd_per_month: float) -> tuple[list[Fleet], bool]:
    """Mixed fleets up to this bill that no bound rules out, cheapest first, and whether the list is complete."""
    found: list[Fleet] = []
    complete = True
    for size in range(2, space.spec.fleets.most_variants + 1):
        for options in itertools.combinations(range(len(space.options)), size):
            if size > 2 and _grid(space, options) > MOST_GRID:
                return sorted(found, key=space.usd_per_month), False
            if bounds.variants_refused(options) is not None:
                continue
            for fleet in _mixed(space, bounds, options, usd_per_month):
                if space.refusal(fleet) is None and bounds.refusal(fleet) is None:
                    found.append(fleet)
                if len(found) >= MOST_LISTED:
                    return sorted(found, key=space.usd_per_month), False
    return sorted(found, key=space.usd_per_month), complete


def _grid(space: Space, options: tuple[int, ...]) -> int:
    sizes = [space.options[option].replicas for option in options]
    return int(np.prod([each.max - each.min + 1 for each in sizes]))


def _mixed(space: Space, bounds: Bounds, options: tuple[int, ...], usd_per_month: float) -> Iterator[Fleet]:
    """Fleets of just these options up to this bill."""
    limit = usd_per_month * (1 + 1e-12)
    ranges = [space.options[o].replicas for o in options]
    prices = [space.options[o].usd_per_month for o in options]
    if len(options) == 2:
        counts = np.arange(ranges[0].min, ranges[0].max + 1)
        least = np.maximum(bounds.least_beside(options[0], counts, options[1]), ranges[1].min)
        for first, start in zip(counts.tolist(), least.tolist(), strict=True):
            for second in range(start, ranges[1].max + 1):
                if first * prices[0] + second * prices[1] > limit:
                    break
                yield (options[0], first), (options[1], second)
        return
    for counted in itertools.product(*(range(each.min, each.max + 1) for each in ranges)):
        if sum(n * price for n, price in zip(counted, prices, strict=True)) <= limit:
            yield tuple(zip(options, counted, strict=True))
