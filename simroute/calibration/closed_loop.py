"""A closed loop against one simulated engine: as many requests in flight as clients, each answer starts the next.

This is how most published benchmarks load a server (`--max-concurrency` of vLLM's bench serve). Owns `closed_loop`;
may import engine and hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simroute.engine.clock import Clock
from simroute.engine.config import EngineConfig
from simroute.engine.replica import Replica
from simroute.engine.sequence import EngineRequest
from simroute.hardware.calibration import RequestTerms
from simroute.hardware.steptime import StepTimeModel

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """What the clients saw, one row a request: times in seconds from the start of the loop."""

    sent_s: Floats
    first_token_s: Floats
    finish_s: Floats
    output_tokens: NDArray[np.int64]
    preemptions: int

    @property
    def ttft_s(self) -> Floats:
        """Time to first token."""
        return self.first_token_s - self.sent_s

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first; NaN for answers of one token."""
        gaps = self.output_tokens - 1
        return np.where(gaps > 0, (self.finish_s - self.first_token_s) / np.maximum(gaps, 1), np.nan)

    @property
    def makespan_s(self) -> float:
        """From the first request to the last answer."""
        return float(self.finish_s.max())


def closed_loop(
    config: EngineConfig,
    step_time: StepTimeModel,
    requests: Sequence[tuple[int, int]],
    concurrency: int,
    overhead: RequestTerms | None = None,
) -> ClosedLoop:
    """Send `requests` (input tokens, output tokens), in order, never more than `concurrency` at a time.

    The first `concurrency` are sent at once. `overhead` is the time a request needs from the client to the engine.
    """
    env = Clock()
    clients = _Clients(env, requests, overhead or RequestTerms())
    clients.replica = Replica(env, config, step_time, clients)
    for _ in range(concurrency):
        clients.send()
    env.run()
    return ClosedLoop(
        clients.sent_s,
        clients.first_token_s,
        clients.finish_s,
        np.array([output_tokens for _, output_tokens in requests], dtype=np.int64),
        clients.preemptions,
    )


class _Clients:
    """Sends requests and takes notes: the `Observer` of the replica."""

    replica: Replica

    def __init__(self, env: Clock, requests: Sequence[tuple[int, int]], overhead: RequestTerms) -> None:
        self.env = env
        self.sent_s, self.first_token_s, self.finish_s = np.full((3, len(requests)), np.nan)
        self.preemptions = 0
        self._overhead = overhead
        self._left: Iterator[tuple[int, tuple[int, int]]] = iter(enumerate(requests))

    def send(self) -> None:
        """The next request leaves its client now, and reaches the engine when its overhead is over."""
        following = next(self._left, None)
        if following is None:
            return
        index, (input_tokens, output_tokens) = following
        self.sent_s[index] = self.env.now
        arrival = self.env.timeout(self._overhead.overhead_s(input_tokens))
        request = EngineRequest(index, self.env.now, input_tokens, output_tokens)
        arrival.callbacks.append(lambda _: self.replica.submit(request))

    def first_token(self, index: int, at_s: float) -> None:
        """See Observer."""
        self.first_token_s[index] = at_s

    def finished(self, request: EngineRequest, at_s: float) -> None:
        """See Observer."""
        self.finish_s[request.index] = at_s
        self.preemptions += request.preemptions
        self.send()

    def gaps(self, row: tuple[float, float, int, int]) -> None:
        """See Observer: the times of single tokens are not kept."""
