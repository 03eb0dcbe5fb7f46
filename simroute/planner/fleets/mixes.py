"""Mixed fleets that a linear model proposes: classes shared out among variants so that the bill is least.

The integer model (scipy's milp) takes the bounds' loads at a utilisation that real fleets reach. It proposes, and
decides nothing. Owns `proposals`. Imports, of this room, bounds and candidates; numpy, and scipy where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Fleet, Space

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
