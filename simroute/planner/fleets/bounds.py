"""What no fleet of a kind can do, however well it is run: cheap, and never true of a fleet that the simulator accepts.

- quality: no variant in the fleet reaches a class's floor;
- context, latency: too many prompts that no variant takes, or that even an idle replica answers too late;
- throughput: in some stretch of time more work falls due, done as cheaply as a step can do it, than the replicas have
  time for. Requests that the promises let miss are left out, the costliest ones.
Owns `Bounds`. Imports policy and, of this room, candidates, limits and work; scipy where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.planner.fleets.candidates import Fleet, Space
from simroute.planner.fleets.limits import SLACK, Limits, limits_of
from simroute.planner.fleets.work import RESOURCES, Costs, Floats, Load, costs_of, load_of
from simroute.policy.routing import reviews_answers

STRETCHES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015)
"""Lengths of the stretches of time that are looked at, as shares of the traffic's."""
PLACES = 200
"""Places that the busiest stretch of a length is looked for at."""
NEVER = 10**9
"""Replicas where no number is enough."""
Bools = NDArray[np.bool_]


class Stretch(NamedTuple):
    """Seconds, and what falls due in them at least: shape (classes, resources)."""

    length_s: float
    due: Floats


@dataclass
class Bounds:
    """The bounds of a plan's space, worked out as they are asked for."""

    space: Space
    _costs: list[Costs] = field(default_factory=list)
    _loads: dict[tuple[tuple[int, ...], bool], tuple[Load, list[Stretch]]] = field(default_factory=dict)
    _slow: dict[tuple[int, int], list[Bools]] = field(default_factory=dict)
    _refusals: dict[tuple[int, ...], str | None] = field(default_factory=dict)
    _beside: dict[tuple[int, int, int], int] = field(default_factory=dict)
    _shared: dict[tuple[int, ...], tuple[list[Sequence[int]], list[Sequence[int]]]] = field(default_factory=dict)
    """Of three or more options, counts that the work is known to fit on, and counts that it is known not to fit on."""

    def __post_init__(self) -> None:
        policies = self.space.spec.policies  # (answers that one of them shows whole have no TPOT)
        self._paced = not any(reviews_answers(policy.name, policy.options) for policy in policies)
        self._costs = [costs_of(pool) for pool in self.space.built.pools]
        self.limits = [limits_of(self.space, name) for name in self.space.classes]
        self.able = np.array([[self._able(option, c) for c in self.space.classes] for option in range(self._n)])

    @property
    def _n(self) -> int:
        return len(self.space.options)

    def refusal(self, fleet: Fleet) -> str | None:
        """Why the fleet, or what a loss leaves of it, cannot keep its promises; None where it might."""
        for left in (fleet, *self.space.degraded(fleet)):
            reason = self._refused(left) if left else "availability"
            if reason is not None:
                return reason
        return None

    def variants_refused(self, options: Sequence[int]) -> str | None:
        """Why no fleet of just these options can keep its promises, however many replicas; None where one might."""
        key = tuple(options)
        if key not in self._refusals:
            self._refusals[key] = self._variants_refused(key)
        return self._refusals[key]

    def _variants_refused(self, options: tuple[int, ...]) -> str | None:
        for c, limits in enumerate(self.limits):
            able = [option for option in options if self.able[option, c]]
            if not able:
                if limits.members.any() and not limits.may_fall_below:
                    return "quality"
                able = list(options)
            reason = self._late(able, limits, c)
            if reason is not None:
                return reason
        return None

    def least(self, option: int) -> int:
        """The fewest replicas that a fleet of one option needs to have left at any time."""
        units = np.array(self._costs[option].unit_s)
        stretches = self._stretches((option,))
        needed = [float((stretch.due @ units).sum()) / stretch.length_s for stretch in stretches]
        return max(1, math.ceil(max(needed, default=0.0) * (1 - SLACK) - SLACK))

    def seconds(self, options: Sequence[int], stretch: Stretch) -> Floats:
        """The replica seconds that everything due in a stretch takes on each option, shape (options, class x resource).

        Infinite where a variant does not reach the class's floor.
        """
        units = np.array([self._costs[option].unit_s for option in options])
        seconds = stretch.due[None, :, :] * units[:, None, :]
        able = np.array([[self.able[option, c] for c in range(len(self.limits))] for option in options])
        forced = ~able.any(axis=0)  # (a class that may fall below its floor altogether)
        seconds = np.where((able | forced)[:, :, None] | (stretch.due[None] == 0), seconds, np.inf)
        return seconds.reshape(len(options), -1)

    def stretches(self, options: Sequence[int]) -> list[Stretch]:
        """The stretches that fleets of these options are held to."""
        return self._stretches(tuple(options))

    def least_beside(self, first: int, counts: NDArray[np.int64], second: int) -> NDArray[np.int64]:
        """The fewest replicas of option `second` beside each of these counts of option `first`, shape (counts,)."""
        found = np.zeros(len(counts), dtype=np.int64)
        for stretch in self._stretches((first, second)):
            seconds = self.seconds((first, second), stretch)
            rest_s = _rest(seconds[0], seconds[1], counts.astype(np.float64) * stretch.length_s)
            needed = np.minimum(rest_s / stretch.length_s * (1 - SLACK) - SLACK, NEVER)
            found = np.maximum(found, np.ceil(needed).astype(np.int64))
        return found

    def _refused(self, fleet: Fleet) -> str | None:
        options = [option for option, _ in fleet]
        reason = self.variants_refused(options)
        if reason is not None:
            return reason
        if len(fleet) == 1:
            return "throughput" if fleet[0][1] < self.least(options[0]) else None
        if len(fleet) == 2:
            key = (*fleet[0], options[1])
            if key not in self._beside:
                self._beside[key] = int(self.least_beside(options[0], np.array([fleet[0][1]]), options[1])[0])
            return "throughput" if fleet[1][1] < self._beside[key] else None
        return None if self._fits(tuple(options), [count for _, count in fleet]) else "throughput"

    def _fits(self, options: tuple[int, ...], counts: Sequence[int]) -> bool:
        """Whether the work of every stretch can be shared out: what fits on some replicas fits on more of them."""
        enough, few = self._shared.setdefault(options, ([], []))
        if any(all(n >= fewer for n, fewer in zip(counts, known, strict=True)) for known in enough):
            return True
        if any(all(n <= more for n, more in zip(counts, known, strict=True)) for known in few):
            return False
        tried = np.array(counts, dtype=np.float64)
        fits = all(self._shares_out(options, tried, stretch) for stretch in self._stretches(options))
        (enough if fits else few).append(counts)
        return fits

    def _shares_out(self, options: Sequence[int], counts: Floats, stretch: Stretch) -> bool:
        """Whether the work of a stretch can be shared out among the replicas."""
        from scipy.optimize import linprog

        seconds = self.seconds(options, stretch)
        width = seconds.shape[1]
        usable = np.isfinite(seconds)
        time = np.zeros((len(options), len(options) * width))
        for i in range(len(options)):
            time[i, i * width : (i + 1) * width] = np.where(usable[i], seconds[i], 0.0)
        shares = np.tile(np.eye(width), (1, len(options)))
        most = usable.reshape(-1).astype(np.float64)
        found = linprog(
            np.zeros(len(most)),
            A_ub=time,
            b_ub=counts * stretch.length_s * (1 + SLACK),
            A_eq=shares,
            b_eq=np.ones(width),
            bounds=np.stack([np.zeros(len(most)), most], axis=1),
        )
        return bool(found.status != 2)

    def serves(self, option: int, c: int) -> bool:
        """Whether most of a class can be answered by an option: it reaches the floor, and idle it is in time."""
        return bool(self.able[option, c]) and not any(slow.mean() > 0.5 for slow in self._too_slow(option, c))

    def _able(self, option: int, request_class: str) -> bool:
        """Whether the option's answers reach the floor of the class."""
        floor = self.space.built.quality_floor.get(request_class)
        score = self.space.built.pools[option].variant.quality.get(request_class)
        return floor is None or (score is not None and score[0] >= floor)

    def _late(self, options: Sequence[int], limits: Limits, c: int) -> str | None:
        """`context` or `latency` where too many requests of a class are lost on all of these options."""
        tolerated = limits.below_floor
        trace = self.space.built.trace
        longest = max(self._costs[option].max_model_len for option in options)
        if int((trace.input_tokens[limits.members] >= longest).sum()) > limits.aims[0][1] + tolerated:
            return "context"
        for aim, (_, missing) in enumerate(limits.aims):
            late = np.logical_and.reduce([self._too_slow(option, c)[aim] for option in options])
            if int(late.sum()) > missing + tolerated:
                return "latency"
        return None

    def _too_slow(self, option: int, c: int) -> list[Bools]:
        """Which requests of a class an idle replica answers too late, for each of the class's aims."""
        if (option, c) in self._slow:
            return self._slow[option, c]
        limits, costs, pool = self.limits[c], self._costs[option], self.space.built.pools[option]
        load, _ = self._load((option,))
        rows = np.flatnonzero(limits.members)
        overhead_s = pool.request.overhead_ms * 1e-3 + pool.request.token_s * load.prompt_tokens[rows]
        ttft_s = costs.prefill_s(load.uncached_tokens[rows], load.prefill[rows, 1]) + overhead_s
        gaps = load.answer_tokens[rows] - 1
        tpot_s = np.where(gaps > 0, costs.gap_s(load.prompt_tokens[rows] + (gaps + 1) / 2), 0.0)
        e2e_s = ttft_s + tpot_s * gaps
        found = []
        for (ttft, tpot, e2e), _ in limits.aims:
            late = load.rejected[rows] | (ttft_s > ttft) | (e2e_s > e2e)
            found.append(late | (tpot_s > tpot) if self._paced else late)
        self._slow[option, c] = found
        return found

    def _stretches(self, options: tuple[int, ...]) -> list[Stretch]:
        return self._load(options)[1]

    def _load(self, options: tuple[int, ...]) -> tuple[Load, list[Stretch]]:
        """The least load on any of these options, and the stretches in which most of it falls due."""
        pools = [self.space.built.pools[option] for option in options]
        lens = tuple(sorted({pool.engine.max_model_len for pool in pools}))
        caching = any(pool.engine.enable_prefix_caching for pool in pools)
        key = (lens, caching)
        if key not in self._loads:
            load = load_of(self.space.built.trace, lens, caching=caching)
            self._loads[key] = (load, self._busiest(load))
        return self._loads[key]

    def _busiest(self, load: Load) -> list[Stretch]:
        """For each length, the stretch of time in which most falls due, by the costs of the middle option."""
        trace = self.space.built.trace
        first_due, all_due = self._due(load)
        finite = all_due[np.isfinite(all_due)]
        end_s = max(float(np.quantile(finite, 0.999)) if len(finite) else 0.0, float(trace.arrival_s[-1]))
        units = np.median([costs.unit_s for costs in self._costs], axis=0)
        weight = np.where(np.isfinite(first_due), load.prefill @ units, 0.0)
        weight += np.where(np.isfinite(all_due), load.decode @ units, 0.0)
        sums = np.concatenate([[0.0], np.cumsum(weight)])
        start_s = float(trace.arrival_s[0])
        found = []
        for share in STRETCHES if end_s > start_s else ():
            length_s = (end_s - start_s) * share
            places = np.linspace(start_s, end_s - length_s, 1 if share == 1.0 else PLACES)
            first, last = (np.searchsorted(trace.arrival_s, edge) for edge in (places, places + length_s))
            a = float(places[int(np.argmax(sums[last] - sums[first]))])
            found.append(Stretch(length_s, self._work(load, first_due, all_due, a, a + length_s)))
        return [stretch for stretch in found if stretch.due.any()]

    def _due(self, load: Load) -> tuple[Floats, Floats]:
        """When each request must have its first token, and its last; infinite where it need not, shape (n,)."""
        arrival_s = self.space.built.trace.arrival_s
        first, last = np.full(len(arrival_s), np.inf), np.full(len(arrival_s), np.inf)
        gaps = np.maximum(self.space.built.trace.output_tokens - 1, 0)
        for limits in self.limits:
            rows = limits.members & ~load.rejected
            first[rows] = min(limits.ttft_s, limits.e2e_s)
            with np.errstate(invalid="ignore"):
                paced = limits.ttft_s + np.where(gaps[rows] > 0, gaps[rows] * limits.tpot_s, 0.0)
            last[rows] = np.minimum(limits.e2e_s, paced)
        return arrival_s + first, arrival_s + last

    def _work(self, load: Load, first_due: Floats, all_due: Floats, a: float, b: float) -> Floats:
        """What falls due in [a, b], less the costliest requests that may miss: shape (classes, resources)."""
        came = self.space.built.trace.arrival_s >= a
        due = np.zeros((len(self.limits), len(RESOURCES)))
        for c, limits in enumerate(self.limits):
            lost = int((load.rejected & limits.members).sum())
            spared = max(limits.spared - lost, 0)
            for used, by in ((load.prefill, first_due), (load.decode, all_due)):
                rows = limits.members & came & (by <= b)
                due[c] += _without_largest(used[rows], spared)
        return due


def _without_largest(used: Floats, spared: int) -> Floats:
    """The sums of the columns without the `spared` largest of each."""
    if spared >= len(used):
        return np.zeros(used.shape[1])
    if not spared:
        found: Floats = used.sum(axis=0)
        return found
    kept = np.partition(used, len(used) - spared, axis=0)[: len(used) - spared]
    return kept.sum(axis=0)  # type: ignore[no-any-return]


def _rest(first_s: Floats, second_s: Floats, capacity_s: Floats) -> Floats:
    """The least time of the second replicas when the first have `capacity_s` (shape (m,)) to give, for shared work.

    What saves the second most for each second of the first goes to the first; what only one can do, it does. Infinite
    where the first cannot do what only they can.
    """
    only_first, only_second = ~np.isfinite(second_s), ~np.isfinite(first_s)
    both = ~only_first & ~only_second & (second_s > 0)
    cost, saved = first_s[both], second_s[both]
    order = np.argsort(-(saved / np.maximum(cost, 1e-300)))
    spent = np.concatenate([[0.0], np.cumsum(cost[order])])
    spared = np.concatenate([[0.0], np.cumsum(saved[order])])
    free_s = capacity_s * (1 + SLACK) - first_s[only_first].sum()
    rest: Floats = second_s[only_second].sum() + saved.sum() - np.interp(free_s, spent, spared)
    return np.where(free_s < 0, np.inf, rest)
