"""One replica on a clock under a script: requests come, clients go, the engine slows down and dies.

`play` runs a script and returns all that can be seen from outside, for tests by hand and for comparing the modes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet.fleets import LinearStepTime
from simpy.events import NORMAL

from simroute.engine.clock import Clock, StandingEvent
from simroute.engine.config import EngineConfig
from simroute.engine.output import SchedulerOutput
from simroute.engine.replica import Replica
from simroute.engine.sequence import EngineRequest

Action = Callable[["Played"], object]


class TokenByToken(Replica):
    """A replica in exact mode that takes down when each token comes, step by step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, exact=True)
        self.token_s: defaultdict[int, list[float]] = defaultdict(list)

    def _step(self, now: float) -> float:
        outs: list[SchedulerOutput] = []
        schedule = self.scheduler.schedule
        self.scheduler.schedule = lambda: outs.append(schedule()) or outs[0]
        next_s = super()._step(now)
        self.scheduler.schedule = schedule
        for request in {**outs[0].scheduled, **outs[0].admitted}:
            if request.decoding:
                self.token_s[request.index].append(self._end_s)
        return next_s


@dataclass
class Played:
    """What the clients saw, by index, and what became of the engine. It is the observer of the replica."""

    replica: Replica = field(init=False)
    requests: dict[int, EngineRequest] = field(default_factory=dict)
    first_token_s: dict[int, float] = field(default_factory=dict)
    finish_s: dict[int, float] = field(default_factory=dict)
    gap_count: int = 0
    gaps_s: float = 0.0
    aborted: dict[int, int] = field(default_factory=dict)  # with the tokens that had come
    unfinished: list[int] = field(default_factory=list)  # when the engine died
    seen: list[Any] = field(default_factory=list)
    on_finish: Action | None = None

    def first_token(self, index: int, at_s: float) -> None:
        assert index not in self.aborted
        self.first_token_s[index] = at_s

    def finished(self, request: EngineRequest, at_s: float) -> None:
        assert request.index not in self.aborted, "its client has gone"
        assert at_s == self.replica.env.now
        self.finish_s[request.index] = at_s
        if self.on_finish is not None:
            self.on_finish(self)

    def gaps(self, row: tuple[float, float, int, int]) -> None:
        first_s, last_s, steps, seqs = row
        self.gap_count += steps * seqs
        self.gaps_s += (first_s + last_s) / 2 * steps * seqs

    def submit(self, request: EngineRequest) -> None:
        self.requests[request.index] = request
        self.replica.submit(request)

    def abort(self, index: int) -> None:
        request = self.requests[index]
        if self.replica.abort(request):
            self._lost(request)
            self.aborted[index] = request.generated_tokens

    def halt(self) -> None:
        for request in self.replica.halt():
            self._lost(request)
            self.unfinished.append(request.index)
            if isinstance(self.replica, TokenByToken) and request.generated_tokens:
                come = [token_s for token_s in self.replica.token_s[request.index] if token_s < self.replica.env.now]
                assert request.last_token_s == (come[-1] if self.on_finish is None else self.replica.env.now)

    def _lost(self, request: EngineRequest) -> None:
        """Strike out a first token that never came."""
        self._check(request, request.generated_tokens)
        if not request.generated_tokens:
            self.first_token_s.pop(request.index, None)

    def _check(self, request: EngineRequest, generated_tokens: int) -> None:
        """What has come of an answer is known in other ways too."""
        replica, now = self.replica, self.replica.env.now
        first_s = self.first_token_s.get(request.index)
        assert (first_s is not None and first_s < now) == (generated_tokens > 0)
        if isinstance(replica, TokenByToken):
            assert generated_tokens == sum(token_s < now for token_s in replica.token_s[request.index])

    def ask(self) -> None:
        replica = self.replica
        for request in (*replica.scheduler.running, *replica.scheduler.waiting):
            if request.index not in self.aborted:
                generated_tokens = replica.generated_tokens(request)
                self._check(request, generated_tokens)
                self.seen.append((request.index, generated_tokens))

    def look(self) -> None:
        replica = self.replica
        used = round(replica.kv_cache_usage * replica.scheduler.pool.usable)
        self.seen.append((replica.num_requests_running, replica.num_requests_waiting, used))

    @property
    def totals(self) -> dict[str, int]:
        replica = self.replica
        names = ("steps", "prefill_tokens", "output_tokens")
        return {name: getattr(replica, name) for name in names} | {"preemptions": replica.scheduler.preemptions}


def submit(*fields: Any, **more: Any) -> Action:
    """A request (index, arrival_s, input_tokens, max_tokens, ..) comes."""
    return lambda played: played.submit(EngineRequest(*fields, **more))


def abort(index: int) -> Action:
    """A client goes."""
    return lambda played: played.abort(index)


def slow_down(factor: float) -> Action:
    """Steps take longer from now on."""
    return lambda played: played.replica.slow_down(factor)


def halt(played: Played) -> None:
    """The engine dies."""
    played.halt()


def ask(played: Played) -> None:
    """Take down how much of each answer has come."""
    played.ask()


def look(played: Played) -> None:
    """Take down what a scrape sees."""
    played.look()


def play(
    script: Iterable[tuple[float, Action]],
    exact: bool,
    step_time: Any = None,
    until_s: float | None = None,
    on_finish: Action | None = None,
    **engine: Any,
) -> Played:
    """Run the script to its end. An engine of 100 blocks of 4 tokens whose steps take a second, unless stated."""
    settings = {"num_gpu_blocks": 101, "block_size": 4, "max_model_len": 256, "max_num_batched_tokens": 64} | engine
    env, played = Clock(), Played(on_finish=on_finish)
    replica = TokenByToken if exact else Replica
    played.replica = replica(env, EngineConfig(**settings), step_time or LinearStepTime(), played)
    for at_s, action in script:
        event = StandingEvent(env, lambda _, action=action: action(played))
        env.schedule_at(event, NORMAL, at_s)
    env.run(until=until_s)
    return played
