"""An oracle that knows how long every answer will be: the yardstick for policies that cannot know.

Owns `Oracle`, a policy that no real router can run, and `DecisionLog`, which sets the choices of any policy beside the
oracle's. May import policy.context, policy.snapshot and workload.request.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.policy.context import ByClass, FloorRule, Group, PolicyContext
from simroute.policy.snapshot import Decision, Reviewer, RoutingPolicy, Snapshot, VariantInfo
from simroute.workload.request import Request

_SEGMENTS = 8
"""Into how many stretches of equal batches the future of a replica is cut: more would only cost time."""


class Outlook(NamedTuple):
    """What a replica holds for a request: its end-to-end time in seconds (NaN where no speed is known), the answer
    tokens still to come there, and the value of the replica's step clock at which the request would end."""

    e2e_s: float
    load_tokens: float
    end: float


class _Book:
    """What was sent to one replica and has not ended, by true lengths.

    `clock` counts the replica's decode steps, as far as can be told from its speed. Entries are (end, tokens): the
    clock at which a request ends and the context that it holds on average, the earliest end first.
    """

    __slots__ = ("clock", "entries", "seen_s", "tokens", "variant")

    def __init__(self, variant: VariantInfo) -> None:
        self.variant = variant
        self.entries: list[tuple[float, float]] = []
        self.tokens = 0.0
        self.clock = 0.0
        self.seen_s = 0.0

    def look(self, now_s: float, in_flight: int) -> None:
        """Let the clock run on to `now_s` and strike out what has ended.

        How many have ended the router's own count says; which ones, their lengths. That also sets the clock right:
        it is past the ends of those that are gone, and not past the end of any that is still there.
        """
        entries, speed = self.entries, self.variant.speed
        if entries and speed is not None:
            step_s = speed.decode_s(len(entries), int(self.tokens))
            self.clock += max(now_s - self.seen_s, 0.0) / step_s if step_s > 0 else 0.0
        self.seen_s = now_s
        gone = len(entries) - in_flight
        if gone > 0:
            self.clock = max(self.clock, entries[gone - 1][0])
            self.tokens -= sum(tokens for _, tokens in entries[:gone])
            del entries[:gone]
        if entries:
            self.clock = min(self.clock, entries[0][0])

    def outlook(self, request: Request, seen: Snapshot) -> Outlook:
        """What would become of `request` if it were sent here now and nothing came after it.

        It waits until there is a seat and memory for it, then for the prompts before it and its own (less what is
        cached), then it decodes in a batch from which the others drop out as they end.
        """
        steps = max(request.max_tokens - 1, 0)
        own_tokens = _context_tokens(request)
        ahead = self._ahead(own_tokens)
        start = self.entries[ahead - 1][0] if ahead else self.clock
        load_tokens = sum(end - self.clock for end, _ in self.entries) + steps
        speed = self.variant.speed
        if speed is None:
            return Outlook(math.nan, load_tokens, start + steps)
        prompt = max(request.input_tokens - seen.prefix_hit_tokens(request), 1)
        prefill_s = speed.prefill_s(seen.queued_tokens + prompt)
        waiting_s = self._steps_s(self.clock, start, 0, 0.0)
        decoding_s = self._steps_s(start, start + steps, 1, own_tokens)
        step_s = speed.decode_s(len(self.entries) - ahead + 1, int(self.tokens + own_tokens))
        delay = prefill_s / step_s if step_s > 0 else 0.0
        return Outlook(waiting_s + prefill_s + decoding_s, load_tokens, start + delay + steps)

    def sent(self, request: Request, outlook: Outlook) -> None:
        """`request` goes there."""
        tokens = _context_tokens(request)
        insort(self.entries, (outlook.end, tokens))
        self.tokens += tokens

    def _ahead(self, own_tokens: float) -> int:
        """How many must end before there is a seat and KV memory for one more with `own_tokens`."""
        ahead = max(len(self.entries) + 1 - self.variant.max_num_seqs, 0)
        held = self.tokens + own_tokens - sum(tokens for _, tokens in self.entries[:ahead])
        while self.variant.kv_tokens and held > self.variant.kv_tokens and ahead < len(self.entries):
            held -= self.entries[ahead][1]
            ahead += 1
        return ahead

    def _steps_s(self, begin: float, until: float, guests: int, guest_tokens: float) -> float:
        """Seconds for the clock to go from `begin` to `until` while entries end, with `guests` besides them."""
        speed, entries = self.variant.speed, self.entries
        assert speed is not None
        number = len(entries)
        at, ended = begin, bisect_right(entries, (begin, math.inf))
        stride = max((number - ended) // _SEGMENTS, 1)
        total_s = 0.0
        while at < until:
            after = min(ended + stride, number)
            stop = min(entries[after - 1][0], until) if ended < number else until
            seqs = number - ended - max(after - ended - 1, 0) // 2  # on average over the stretch
            tokens = self.tokens * seqs / number if number else 0.0
            total_s += (stop - at) * speed.decode_s(max(seqs + guests, 1), int(tokens + guest_tokens))
            at, ended = stop, after
        return total_s


class _Foresight:
    """The books of a fleet: what every replica that may serve a request holds for it."""

    def __init__(self, rule: FloorRule, context: PolicyContext) -> None:
        self._books = [_Book(context.variants[pool]) for pool in context.pool_of_replica]
        self.groups = ByClass(context, rule, lambda pools: Group(context, pools))

    def outlooks(self, request: Request, snapshots: Sequence[Snapshot], chosen: int = -1) -> dict[int, Outlook]:
        """The outlook of each replica that takes requests of this class now, and of `chosen`, by replica."""
        replicas = {decision.replica for decision in self.groups[request.request_class].choices} | {chosen}
        found = {}
        for replica in sorted(replicas - {-1}):
            book, seen = self._books[replica], snapshots[replica]
            book.look(request.arrival_s, seen.in_flight)
            found[replica] = book.outlook(request, seen)
        return found

    def sent(self, request: Request, replica: int, outlook: Outlook) -> None:
        """`request` goes to `replica`, where its outlook was this."""
        self._books[replica].sent(request, outlook)


class Oracle:
    """The replica on which the request, whose answer's length is known, would end soonest; ties to the lowest number.

    It keeps the class's quality floor. No real router can run it: it reads `max_tokens` as the true length of the
    answer. What comes later it does not know, nor what its choice does to others: it is a yardstick, not an optimum.
    Where no variant's speed is known it takes the replica with the fewest answer tokens still to come.
    """

    Options: ClassVar[type[FloorRule]] = FloorRule
    counts_tokens: ClassVar[bool] = True
    reads_kv_events: ClassVar[bool] = True

    def __init__(self, options: FloorRule, context: PolicyContext) -> None:
        self._foresight = _Foresight(options, context)

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the best outlook."""
        outlooks = self._foresight.outlooks(request, snapshots)
        if not outlooks:
            return self._foresight.groups[request.request_class].choices[0]
        replica = _best(outlooks)
        self._foresight.sent(request, replica, outlooks[replica])
        return Decision(replica)


class DecisionLog:
    """A policy that chooses as `policy` does and writes down what an oracle would have chosen in its place.

    The oracle considers the replicas that meet the class's quality floor, and the chosen one, so a regret is never
    below zero. Give it the context that `policy` was made for; `watched` makes the right kind of log.
    """

    counts_tokens: ClassVar[bool] = True
    reads_kv_events: ClassVar[bool] = True

    def __init__(self, policy: RoutingPolicy, context: PolicyContext) -> None:
        self._policy = policy
        self._foresight = _Foresight(FloorRule(), context)
        self._request, self._chosen, self._best = array("q"), array("q"), array("q")
        self._arrival_s, self._chosen_s, self._best_s = array("d"), array("d"), array("d")

    def __getattr__(self, name: str) -> Any:
        """Whatever else a router asks of a policy, the policy itself answers."""
        if name == "_policy":
            raise AttributeError(name)  # (asked for while being copied, before there is one)
        return getattr(self._policy, name)

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """What `policy` chooses."""
        decision = self._policy.choose(request, snapshots)
        chosen = decision.replica
        if chosen >= len(snapshots):
            return decision  # no such replica: the router says so
        outlooks = self._foresight.outlooks(request, snapshots, chosen)
        best = _best(outlooks) if outlooks else -1
        self._request.append(request.index)
        self._arrival_s.append(request.arrival_s)
        self._chosen.append(chosen)
        self._best.append(best)
        self._chosen_s.append(outlooks[chosen].e2e_s if chosen >= 0 else math.nan)
        self._best_s.append(outlooks[best].e2e_s if best >= 0 else math.nan)
        if chosen >= 0:
            self._foresight.sent(request, chosen, outlooks[chosen])
        return decision

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """One row a decision: `request`, `arrival_s`, `chosen` and `best` (replicas, -1 for none), `chosen_s` and
        `best_s` (predicted seconds from arrival to the last token) and `regret_s`, their difference; NaN if unknown."""
        chosen_s, best_s = (np.array(column, dtype=np.float64) for column in (self._chosen_s, self._best_s))
        return {
            "request": np.array(self._request, dtype=np.int64),
            "arrival_s": np.array(self._arrival_s, dtype=np.float64),
            "chosen": np.array(self._chosen, dtype=np.int64),
            "best": np.array(self._best, dtype=np.int64),
            "chosen_s": chosen_s,
            "best_s": best_s,
            "regret_s": chosen_s - best_s,
        }


class _ReviewedLog(DecisionLog):
    """The log of a policy that looks at answers: what it sends on is in the books, but is no choice among equals."""

    def review(self, request: Request, replica: int, snapshots: Sequence[Snapshot]) -> Decision | None:
        """What `policy` says to the answer."""
        assert isinstance(self._policy, Reviewer)
        decision = self._policy.review(request, replica, snapshots)
        if decision is not None and decision.replica >= 0:
            outlooks = self._foresight.outlooks(request, snapshots, decision.replica)
            self._foresight.sent(request, decision.replica, outlooks[decision.replica])
        return decision


def watched(policy: RoutingPolicy, context: PolicyContext) -> DecisionLog:
    """A log around `policy`, which was made for `context`."""
    return _ReviewedLog(policy, context) if isinstance(policy, Reviewer) else DecisionLog(policy, context)


def _best(outlooks: Mapping[int, Outlook]) -> int:
    """The replica where the request ends soonest; where nothing is known of speeds, the one with the least to do."""
    timed = {replica: seen.e2e_s for replica, seen in outlooks.items() if not math.isnan(seen.e2e_s)}
    costs = timed or {replica: seen.load_tokens for replica, seen in outlooks.items()}
    return min(costs, key=lambda replica: (costs[replica], replica))


def _context_tokens(request: Request) -> float:
    """The context that a request holds on average while it decodes."""
    return request.input_tokens + request.max_tokens / 2
