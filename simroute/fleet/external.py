"""Somebody else's endpoint in the place of a replica. Owns `ExternalReplica`; may import engine, fleet.pool and rng."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from simroute.engine.clock import Clock
from simroute.engine.core import Observer
from simroute.engine.sequence import EngineRequest
from simroute.fleet.pool import External

PER_MILLION = 1e-6
MINUTE_S = 60.0


class ExternalReplica:
    """Answers each request by itself, after times drawn for it alone; `usd` is what the tokens have cost.

    The draws belong to the request's index, so that every policy meets the same luck. What a cut answer had cost so
    far is paid: its prompt and the tokens that had come.
    """

    num_requests_waiting = 0
    kv_cache_usage = 0.0
    busy_s = 0.0
    steps = 0

    def __init__(self, env: Clock, terms: External, observer: Observer, draws: Callable[[int], np.random.Generator]):
        self._env = env
        self._terms = terms
        self._observer = observer
        self._draws = draws
        self._ends: dict[EngineRequest, tuple[float, float]] = {}  # in flight: when the first token comes, tpot_s
        self._minute: deque[float] = deque()  # when the requests of the last minute came, where they are counted
        self.usd = 0.0
        self.prefill_tokens = 0
        self.output_tokens = 0

    @property
    def num_requests_running(self) -> int:
        """Requests in flight."""
        return len(self._ends)

    def accepts(self) -> bool:
        """Whether its rate limit lets a request in now."""
        limit, minute, now = self._terms.requests_per_minute, self._minute, self._env.now
        while minute and minute[0] <= now - MINUTE_S:
            minute.popleft()
        return limit is None or len(minute) < limit

    def submit(self, request: EngineRequest) -> None:
        """A request arrives now."""
        terms, now = self._terms, self._env.now
        if terms.requests_per_minute is not None:
            self._minute.append(now)
        factor = 1.0
        if terms.spread:
            factor = float(np.exp(terms.spread * self._draws(request.index).standard_normal()))
        first_s, tpot_s = now + terms.ttft_s * factor, terms.tpot_s * factor
        self._ends[request] = (first_s, tpot_s)
        self._observer.first_token(request.index, first_s)
        end_s = first_s + tpot_s * (request.max_tokens - 1)
        self._env.call_at(end_s, lambda: self._end(request))

    def generated_tokens(self, request: EngineRequest) -> int:
        """Tokens of `request` that have come by now."""
        first_s, tpot_s = self._ends[request]
        late_s = self._env.now - first_s
        if late_s < 0:
            return 0
        return min(request.max_tokens, 1 + int(late_s / tpot_s) if tpot_s else request.max_tokens)

    def abort(self, request: EngineRequest) -> None:
        """The client has gone."""
        if request in self._ends:
            self._close(request, self.generated_tokens(request))
            del self._ends[request]

    def halt(self) -> list[EngineRequest]:
        """The endpoint is gone: the requests that were in flight."""
        lost = list(self._ends)
        for request in lost:
            self.abort(request)
        return lost

    def settle(self) -> None:
        """The run ends now: what has come was seen, and is paid."""
        for request in self._ends:
            self._close(request, self.generated_tokens(request))

    def _end(self, request: EngineRequest) -> None:
        if request in self._ends:
            self._close(request, request.max_tokens)
            del self._ends[request]
            self._observer.finished(request, self._env.now)

    def _close(self, request: EngineRequest, output_tokens: int) -> None:
        """So many tokens of `request` have come, and no more will."""
        terms, (_, tpot_s) = self._terms, self._ends[request]
        if output_tokens > 1:
            self._observer.gaps((tpot_s, tpot_s, output_tokens - 1, 1))
        self.prefill_tokens += request.input_tokens
        self.output_tokens += output_tokens
        self.usd += PER_MILLION * (
            request.input_tokens * terms.usd_per_1m_input_tokens + output_tokens * terms.usd_per_1m_output_tokens
        )
