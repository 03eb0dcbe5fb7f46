"""What an autoscaler is told of one pool. Owns `PoolWatch`; imports numpy."""

from __future__ import annotations

from collections import deque

import numpy as np


class PoolWatch:
    """Counts requests sent to a pool and keeps the first tokens of the last `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self.sent = 0
        self._window_s = window_s
        self._sent_before = 0
        self._first_tokens: deque[tuple[float, float]] = deque()

    def first_token(self, at_s: float, ttft_s: float) -> None:
        """A first token comes at `at_s`, `ttft_s` after its request reached the router."""
        self._first_tokens.append((at_s, ttft_s))

    def ttft_p90_s(self, now: float) -> float | None:
        """The 90th percentile of the last times to first token; None without any."""
        recent = self._first_tokens
        while recent and recent[0][0] < now - self._window_s:
            recent.popleft()
        known = [ttft_s for at_s, ttft_s in recent if at_s <= now]
        return float(np.percentile(known, 90)) if known else None

    def arrivals_per_s(self, interval_s: float) -> float:
        """Requests a second since this was last asked, `interval_s` ago."""
        count, self._sent_before = self.sent - self._sent_before, self.sent
        return count / interval_s
