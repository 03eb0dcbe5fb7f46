"""Named scorers with weights, as llm-d's router has them. Owns `Weighted`, its options and its presets.

May import policy.context, policy.snapshot, workload.request and, of this folder, candidates, prefix_index and scorers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from simroute.policy.context import BalancerOptions, ByClass, PolicyContext, uniforms
from simroute.policy.routing.candidates import Candidates
from simroute.policy.routing.prefix_index import PrefixIndex
from simroute.policy.routing.scorers import (
    LoraScorer,
    PrecisePrefixScorer,
    PrefixScorer,
    Remembering,
    Scorer,
    SessionScorer,
    SignalScorer,
)
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight = attrgetter("in_flight")

PRESETS: Mapping[str, Mapping[str, float]] = {
    "llm-d": {"queue_depth": 2.0, "kv_usage": 2.0, "prefix": 3.0},
    "llm-d-payload-agnostic": {"active_requests": 1.0, "session": 1.0},
}
"""Weights that llm-d's router ships (github.com/llm-d/llm-d-router, read 2026-11): the first are those it uses when it
is given no configuration (pkg/epp/config/loader/defaults.go), the second its payload-agnostic.yaml, for requests that
it cannot read (config/charts/routerlib/templates/_config.yaml). The Gateway API Inference Extension's chart has the
first too."""


class ScorerWeights(BaseModel):
    """The weight of each scorer, 0 or more. One that is left out has the preset's weight, 0 without a preset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    prefix_precise: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    queue_depth: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    kv_usage: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    active_requests: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    running: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    load: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    session: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    lora: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)


class WeightedOptions(BalancerOptions):
    """Which scorers count how much, and what they need to know.

    `preset`: weights to start from (`llm-d` where no weights are given either); `weights` overrides them one by one.
    `ties`: equal totals go to the replica with the fewest in flight, then the lowest number, or to a `random` one.
    `ttl_s`, `capacity_tokens`: as in `prefix_affinity`, for the scorer prefix. `session_ttl_s`: how long a session is
    remembered. `max_loras`: adapters a replica holds. `queue_threshold`: the queue at which the scorer load gives 0.
    """

    preset: Literal["llm-d", "llm-d-payload-agnostic"] | None = None
    weights: ScorerWeights = ScorerWeights()
    ties: Literal["least_requests", "random"] = "least_requests"
    ttl_s: float | None = Field(default=600.0, gt=0.0)
    capacity_tokens: int | None = Field(default=None, ge=1)
    session_ttl_s: float = Field(default=600.0, gt=0.0)
    max_loras: int = Field(default=1, ge=1)
    queue_threshold: int = Field(default=128, ge=1)

    def effective(self) -> dict[str, float]:
        """The weights that are not 0, in the order of `ScorerWeights`, which is the order of summation."""
        own = self.weights.model_dump(exclude_none=True)
        preset = self.preset or ("llm-d" if not own else None)
        weights = {**(PRESETS[preset] if preset else {}), **own}
        return {name: weights[name] for name in ScorerWeights.model_fields if weights.get(name)}


class _Board:
    """Candidates and what scores them."""

    __slots__ = ("candidates", "scorers")

    def __init__(self, candidates: Candidates, scorers: Sequence[tuple[float, Scorer]]) -> None:
        self.candidates = candidates
        self.scorers = scorers


class Weighted:
    """The replica with the highest sum of weight x score.

    What a scorer remembers of a replica is forgotten when that goes down. Reads KV events (`reads_kv_events`) only
    where the scorer prefix_precise has a weight.
    """

    Options: ClassVar[type[WeightedOptions]] = WeightedOptions
    reads_kv_events = False

    def __init__(self, options: WeightedOptions, context: PolicyContext) -> None:
        self._weights = options.effective()
        self._queue_threshold = options.queue_threshold
        self._context = context
        self.reads_kv_events = "prefix_precise" in self._weights
        remembering = _remembering(options, context, self._weights)
        self._shared: dict[str, Scorer] = {**remembering, "prefix_precise": PrecisePrefixScorer()}
        self._remembering = tuple(remembering.values())
        self._boards = ByClass(context, options, self._board)
        self._uniforms = uniforms(context.rng) if options.ties == "random" else None

    def _board(self, pools: tuple[int, ...]) -> _Board:
        scorers = [
            (weight, self._shared.get(name) or SignalScorer(name, self._queue_threshold))
            for name, weight in self._weights.items()
        ]
        return _Board(Candidates(self._context, pools), scorers)

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the best total."""
        board = self._boards[request.request_class]
        candidates = board.candidates
        if not candidates.replicas:
            return candidates.choices[0]
        seen = candidates.seen(snapshots)
        totals = np.zeros(len(seen))
        for weight, scorer in board.scorers:
            totals += weight * scorer.score(request, candidates, seen)
        best = np.flatnonzero(totals == totals.max()).tolist()
        decision = candidates.choices[self._pick(best, seen)]
        for memory in self._remembering:
            memory.chosen(request, decision.replica)
        return decision

    def _pick(self, best: list[int], seen: Sequence[Snapshot]) -> int:
        """One of the positions with the best total."""
        if self._uniforms is not None:  # one draw a request, however many tie: choices of two runs stay comparable
            return best[int(next(self._uniforms) * len(best))]
        if len(best) == 1:
            return best[0]
        loads = list(map(_in_flight, map(seen.__getitem__, best)))
        return best[loads.index(min(loads))]


def _remembering(
    options: WeightedOptions, context: PolicyContext, weights: Mapping[str, float]
) -> dict[str, Remembering]:
    """Those of the weighted scorers that remember, made anew."""
    scorers: dict[str, Remembering] = {}
    if "prefix" in weights:
        scorers["prefix"] = PrefixScorer(PrefixIndex(context, options.ttl_s, options.capacity_tokens))
    if "session" in weights:
        scorers["session"] = SessionScorer(context, options.session_ttl_s)
    if "lora" in weights:
        scorers["lora"] = LoraScorer(context, options.max_loras)
    return scorers
