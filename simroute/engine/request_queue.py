"""WAITING in its two orders, as in vLLM: first come first served, or by priority. May import engine.sequence only."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from simroute.engine.sequence import EngineRequest


class FCFSQueue(deque[EngineRequest]):
    """Arrivals at the end; preempted requests go back to the front. (`remove` is the deque's own.)"""

    push = deque.append
    push_back = deque.appendleft
    pop_head = deque.popleft

    @property
    def head(self) -> EngineRequest:
        """The next to be admitted."""
        return self[0]


class PriorityQueue:
    """A heap on `EngineRequest.order`; preempted requests take their old place."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, float, int], EngineRequest]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def __contains__(self, request: EngineRequest) -> bool:
        return any(item[1] is request for item in self._heap)

    def __iter__(self) -> Iterator[EngineRequest]:
        return (request for _, request in sorted(self._heap, key=lambda item: item[0]))

    @property
    def head(self) -> EngineRequest:
        """The next to be admitted."""
        return self._heap[0][1]

    def push(self, request: EngineRequest) -> None:
        """A request arrives."""
        heapq.heappush(self._heap, (request.order, request))

    def push_back(self, request: EngineRequest) -> None:
        """A preempted request comes back."""
        self.push(request)

    def pop_head(self) -> EngineRequest:
        """Remove the head and return it."""
        return heapq.heappop(self._heap)[1]

    def remove(self, request: EngineRequest) -> None:
        """Remove a request wherever it stands."""
        self._heap = [item for item in self._heap if item[1] is not request]
        heapq.heapify(self._heap)
