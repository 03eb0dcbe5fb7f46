"""What the fleet writes down while it runs, in flat arrays. Owns `Recorder`; may import engine, fleet.pool,
results and workload."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simroute.engine.sequence import EngineRequest
from simroute.fleet.pool import Pool
from simroute.results.itl import ItlHistogram
from simroute.results.run import Status
from simroute.workload.columns import Floats
from simroute.workload.trace import Trace

NOT_ASKED = -1
"""Cached tokens of a request that has not been admitted."""
NAN = float("nan")
NO_REASON = "no reason was given"
"""What stands for the reason of a policy or rule that gives none."""
MOST_REASONS = 100
"""Reasons that are told apart: one with a number in it, say, is another one for every request."""
OTHER_REASON = f"another reason (beyond the first {MOST_REASONS})"
BUFFERED_GAPS = 1 << 15
"""Rows of gaps kept until they go into the histogram."""


class Recorder:
    """One row a request (see FleetRun) and the pooled inter-token gaps."""

    def __init__(self, trace: Trace) -> None:
        requests = len(trace)
        self._trace = trace
        nan = array("d", [NAN])
        self.first_token_s = nan * requests
        self.finish_s = nan * requests
        self.status = array("b", [Status.UNFINISHED]) * requests
        self.replica = array("i", [-1]) * requests
        self.preemptions = array("i", [0]) * requests
        self.cached_tokens = array("q", [0]) * requests
        self.reason_code = array("i", [-1]) * requests
        self.reasons: dict[str, int] = {}  # with the code of each
        self.itl = ItlHistogram()
        self.sent_s: array[float] | None = None
        self.left_s: array[float] = array("d")
        self.tries: array[int] | None = None
        self.attempts: array[int] | None = None
        self._gaps: list[float] = []  # first_s, last_s, steps, seqs of one run of gaps after another
        self.gaps = self._gaps.extend  # see Observer: called for every stretch of steps

    def keep_attempts(self) -> tuple[array[int], array[int]]:
        """Two counts a request, to be kept from now on: how often its client asks, and how often it is sent.

        When those leave that get no answer is noted too.
        """
        requests = len(self._trace)
        self.left_s = array("d", [NAN]) * requests
        self.tries, self.attempts = (array("i", [0]) * requests for _ in range(2))
        return self.tries, self.attempts

    def keep_arrivals(self) -> array[float]:
        """Note when each request really arrives (inf: never), the trace's times being no more than a plan."""
        self.sent_s = array("d", [math.inf]) * len(self._trace)
        return self.sent_s

    def history(self, request: EngineRequest, asked_tokens: int | None = None) -> None:
        """What `request` has gone through so far; of what it found in a cache, no more than the client's prompt."""
        found = request.cached_tokens
        self.cached_tokens[request.index] = found if asked_tokens is None else min(found, asked_tokens)
        self.preemptions[request.index] = request.preemptions

    def never_admitted(self, request: EngineRequest) -> None:
        """`request` waits to the end: nobody has looked for its prompt."""
        self.cached_tokens[request.index] = NOT_ASKED

    def unanswered(self, index: int, status: Status, reason: str) -> None:
        """Request number `index` ends without an answer, for a `reason` that can be told if it is none."""
        reasons = self.reasons
        reason = reason or NO_REASON
        if reason not in reasons and len(reasons) >= MOST_REASONS:
            reason = OTHER_REASON
        self.status[index] = status
        self.reason_code[index] = reasons.setdefault(reason, len(reasons))
        self.first_token_s[index] = NAN

    def columns(self, end_s: float, pools: Sequence[Pool]) -> dict[str, Any]:
        """FleetRun's columns, with the pool of every place; what would have happened after `end_s` has not happened."""
        first_token_s = np.frombuffer(self.first_token_s, dtype=np.float64)
        first_token_s[first_token_s > end_s] = np.nan
        finish_s = np.frombuffer(self.finish_s, dtype=np.float64)
        status = np.frombuffer(self.status, dtype=np.int8)
        completed = ~np.isnan(finish_s)
        status[completed] = Status.COMPLETED
        replica = np.frombuffer(self.replica, dtype=np.int32)
        generated = self._trace.output_tokens.copy()
        max_model_len = np.array([pool.engine.max_model_len for pool in pools])
        room = max_model_len[replica[completed]] - self._trace.input_tokens[completed]
        generated[completed] = np.minimum(generated[completed], room)
        outside_s = self._outside_s(replica, pools)
        return {
            "first_token_s": first_token_s + outside_s,
            "finish_s": finish_s + outside_s,
            "status": status,
            "replica": replica,
            "preemptions": np.frombuffer(self.preemptions, dtype=np.int32),
            "cached_tokens": np.maximum(self.cached_tokens, 0),
            "reason_code": np.frombuffer(self.reason_code, dtype=np.int32),
            "reasons": tuple(self.reasons),
            "generated_tokens": generated,
            "sent_s": None if self.sent_s is None else np.frombuffer(self.sent_s, dtype=np.float64),
            "left_s": None if self.attempts is None else np.frombuffer(self.left_s, dtype=np.float64),
            "tries": None if self.tries is None else np.frombuffer(self.tries, dtype=np.int32),
            "attempts": None if self.attempts is None else np.frombuffer(self.attempts, dtype=np.int32),
        }

    def _outside_s(self, replica: NDArray[np.int32], pools: Sequence[Pool]) -> Floats:
        """Seconds each request waits outside its engine, by the terms of its pool."""
        fixed_s, token_s = np.array([(pool.request.overhead_s(0), pool.request.token_s) for pool in pools]).T
        outside_s: Floats = fixed_s[replica] + token_s[replica] * self._trace.input_tokens
        return outside_s

    def prefix_tokens(self, replica: int) -> tuple[int, int]:
        """(queried, hit) prompt tokens of the requests that `replica` has admitted, each counted once."""
        cached = np.frombuffer(self.cached_tokens, dtype=np.int64)
        admitted = (np.frombuffer(self.replica, dtype=np.int32) == replica) & (cached != NOT_ASKED)
        admitted &= np.frombuffer(self.status, dtype=np.int8) != Status.REJECTED
        return int(self._trace.input_tokens[admitted].sum()), int(cached[admitted].sum())

    def flush(self, buffered: int = 0) -> None:
        """Put the buffered gaps into the histogram, if there are more than `buffered` rows of them."""
        if len(self._gaps) <= 4 * buffered:
            return
        rows = np.fromiter(self._gaps, np.float64, len(self._gaps)).reshape(-1, 4)
        self.itl.add(rows[:, 0], rows[:, 1], rows[:, 2].astype(np.int64), rows[:, 3].astype(np.int64))
        del self._gaps[:]
