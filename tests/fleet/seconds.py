"""Fleets whose steps take a second, so that an answer of n tokens takes n seconds; what can be asked of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fleet.fleets import LinearStepTime
from fleet.living import a_pool

from simroute.fleet.cluster import simulate
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import External, Pool
from simroute.policy.admission import FleetLoad
from simroute.policy.context import Membership
from simroute.results.run import FleetRun, Status
from simroute.workload.request import Request
from simroute.workload.trace import Trace

PROMPT = 8
"""Prompt tokens of these requests: two KV blocks of theirs."""


def seconds(replicas: int = 1, places: int = 0, seats: int = 1, name: str = "pool", **engine: Any) -> Pool:
    """A pool of engines with `seats` each; places are in east and west in turn. See COLD for how they start."""
    settings = {"max_num_seqs": seats, "async_scheduling": False} | engine
    pool = a_pool(replicas, places, LinearStepTime(), **settings)
    return replace(pool, name=name, variant=replace(pool.variant, pool=name))


def endpoint(name: str = "outside", ttft_s: float = 1.0, tpot_s: float = 0.5, **terms: Any) -> Pool:
    """Somebody else's endpoint; $1 a million prompt tokens and $2 a million answer tokens unless stated."""
    pool = seconds(name=name, enable_prefix_caching=False)
    priced = {"usd_per_1m_input_tokens": 1.0, "usd_per_1m_output_tokens": 2.0} | terms
    variant = replace(pool.variant, external=True, usd_per_hour=0.0, max_num_seqs=100_000)
    return replace(pool, variant=variant, gpus_per_replica=0, external=External(ttft_s=ttft_s, tpot_s=tpot_s, **priced))


def requests(arrival_s: Sequence[float], answers: Any = 1, **columns: Any) -> Trace:
    """Requests at these times, with answers of so many tokens."""
    return Trace.build(arrival_s=arrival_s, **{"input_tokens": PROMPT, "output_tokens": answers} | columns)


def under(trace: Trace, pools: Sequence[Pool], policy: Any, options: FleetOptions | None = None) -> FleetRun:
    """Simulate under a policy of one's own."""
    members = Membership(place < pool.replicas for pool in pools for place in range(pool.places))
    return simulate(trace, pools, policy, policy_name="own", seed=0, members=members, options=options)


def reasons(run: FleetRun) -> list[str]:
    """Why each request got no answer, in order; empty for those that did."""
    return [run.reasons[code] if code >= 0 else "" for code in run.reason_code]


def statuses(run: FleetRun) -> list[Status]:
    """How each request ended."""
    return [Status(status) for status in run.status]


class Choose:
    """A policy made of a function of (request, snapshots)."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose


class Refusing:
    """An admission rule that lets in what `admits` says, and writes down when it was asked and what it was shown."""

    def __init__(self, admits: Any = lambda request: False, reason: str = "refused") -> None:
        self._admits = admits
        self._reason = reason
        self.asked: list[tuple[float, int]] = []
        self.shown: list[FleetLoad] = []

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """See AdmissionRule."""
        self.asked.append((now_s, request.index))
        self.shown.append(replace(load))
        return None if self._admits(request) else self._reason

    @property
    def times(self) -> list[float]:
        """When it was asked."""
        return [at_s for at_s, _ in self.asked]
