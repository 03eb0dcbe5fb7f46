"""Items of work on an existing Ray cluster: the seam `Executor` for more than one machine.

Every node must have the same simroute. Ray is imported where it is used (`pip install 'simroute[ray]'`). Imports errors
and, of this room, cache and executor.
"""

from __future__ import annotations

import platform
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from simroute import __version__
from simroute.errors import UsageError
from simroute.planner.execution.cache import source_sha256
from simroute.planner.execution.executor import RETRIES, Failure, Progress, R, Stop, T, attempted, watched

NODE_LOSSES = 3
"""Times that Ray begins an item again whose node died under it."""
_POLL_S = 0.1
_CONNECT_S = 5.0
_ANSWER_S = 60.0


class RayExecutor:
    """The cluster at `address` (`host:port`, or `ray://host:port`; left out: the one that this machine is a node of).

    Raises UsageError where Ray is not installed, the cluster cannot be reached, or a node has another simroute.
    """

    def __init__(self, address: str | None = None, retries: int = RETRIES) -> None:
        self._ray = _connected(address)
        self._retries = retries
        _check_nodes(self._ray)

    def map(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Iterator[tuple[int, R | Failure]]:
        """See Executor. `fn` and the items travel to each node once."""
        if not items:
            return
        run = _Run(self._ray, fn, items, self._retries)
        try:
            yield from watched(run.results, len(items), progress, stop)
        finally:
            run.cancel()


class _Run:
    """One `map`: what waits, what is under way, what failed once."""

    def __init__(self, ray: Any, fn: Callable[[Any], Any], items: Sequence[Any], retries: int) -> None:
        self._ray = ray
        self._work = ray.put((fn, list(items)))
        self._task = ray.remote(_attempt).options(max_retries=NODE_LOSSES)
        self._waiting = deque(range(len(items)))
        self._under_way: dict[Any, int] = {}
        self._tries: Counter[int] = Counter()
        self._retries = retries

    def results(self, stopped: Stop) -> Iterator[tuple[int, Any]]:
        """Results as they come, until all are there or `stopped()`."""
        while self._waiting or self._under_way:
            if stopped():
                return
            most = 2 * max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
            while self._waiting and len(self._under_way) < most:
                item = self._waiting.popleft()
                self._under_way[self._task.remote(self._work, item)] = item
            ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=_POLL_S)
            for reference in ready:
                found = self._take(reference)
                if found is not None:
                    yield found

    def _take(self, reference: Any) -> tuple[int, Any] | None:
        """What is said of an item; None where it will be tried again."""
        item = self._under_way.pop(reference)
        try:
            done, value, again = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            done, value, again = False, f"lost on the cluster: {_line(error)}", True
        if done:
            return item, value
        self._tries[item] += 1
        if again and self._tries[item] <= self._retries:
            self._waiting.append(item)
            return None
        return item, Failure(value, self._tries[item])

    def cancel(self) -> None:
        """Give up what is under way."""
        for reference in self._under_way:
            self._ray.cancel(reference, force=True)
        self._under_way.clear()


def _attempt(work: tuple[Callable[[Any], Any], Sequence[Any]], number: int) -> tuple[bool, Any, bool]:
    """On a node: item `number` of the work."""
    fn, items = work
    return attempted(fn, items[number])


def _connected(address: str | None) -> Any:
    """Ray, connected to the cluster."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UsageError("--executor ray: Ray is not installed: pip install 'simroute[ray]'") from None
    if ray.is_initialized():
        return ray
    where = address or "the cluster of this machine"
    if address is not None:
        reach(address)
    try:
        ray.init(address or "auto", log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"--executor ray: {where} cannot be joined: {_line(error)}; start one with `ray start --head` or give "
            "--ray-address HOST:PORT"
        ) from None
    return ray


def reach(address: str) -> None:
    """Refuse an address where nobody answers, at once rather than after Ray's own minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or not host:
        raise UsageError(f"--ray-address {address}: must be HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray-address {address}: nobody answers there: {_line(error)}") from None


def identity() -> dict[str, str]:
    """What must be the same on every node."""
    return {"simroute": __version__, "source": source_sha256(), "python": platform.python_version()}


def _check_nodes(ray: Any) -> None:
    """Refuse a cluster of which a node would compute something else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ask = ray.remote(identity).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            asked.append((node["NodeManagerAddress"], ask.remote()))
    for name, reference in asked:
        try:
            theirs = ray.get(reference, timeout=_ANSWER_S)
        except Exception as error:
            raise UsageError(f"--executor ray: node {name} has no simroute that runs: {_line(error)}") from None
        check_identity(name, theirs)


def check_identity(node: str, theirs: Mapping[str, str]) -> None:
    """Raises UsageError, naming the node, unless it has what we have."""
    for what, ours in identity().items():
        if theirs.get(what) != ours:
            got = "another source of the same version" if what == "source" else f"{what} {theirs.get(what)}, not {ours}"
            raise UsageError(f"--executor ray: node {node} runs {got}: install the same on every node")


def _line(error: BaseException) -> str:
    """The last line that says something: Ray's errors carry whole tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
