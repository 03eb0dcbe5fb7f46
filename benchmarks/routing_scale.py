"""Prints what one routing decision costs, in microseconds, by policy and by number of replicas, on one core.

Usage: python benchmarks/routing_scale.py [--policy NAME]... [--replicas N]... [--requests N] [--repeat N]. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from simroute.policy.routing import PolicyContext, make_policy
from simroute.policy.snapshot import VariantInfo
from simroute.rng import stream
from simroute.workload.request import Request

BLOCK_TOKENS = 512
SYSTEM_BLOCKS = 2
TURNS = 8
ARRIVALS_PER_REPLICA_PER_S = 2.0
SCRAPE_S = 1.0
IN_FLIGHT_PER_REPLICA = 12
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "power_of_two": ("power_of_two", {}),
    "least_requests": ("least_requests", {}),
    "least_tokens": ("least_tokens", {}),
    "session_affinity": ("session_affinity", {}),
    "prefix_affinity": ("prefix_affinity", {}),
    "weighted": ("weighted", {"preset": "llm-d"}),
    "weighted, all": (
        "weighted",
        {
            "weights": dict.fromkeys(
                ("prefix", "kv_usage", "active_requests", "running", "load", "session", "lora"), 1.0
            )
        },
    ),
}


class Seen:
    """A snapshot that costs nothing to read but the attribute: what is measured is the policy alone."""

    __slots__ = (
        "in_flight",
        "in_flight_tokens",
        "kv_cache_usage",
        "num_requests_running",
        "num_requests_waiting",
        "queued_tokens",
        "replica",
        "variant",
    )

    def __init__(self, replica: int, variant: VariantInfo) -> None:
        self.replica = replica
        self.variant = variant
        self.in_flight = self.in_flight_tokens = self.queued_tokens = 0
        self.num_requests_running = self.num_requests_waiting = 0
        self.kv_cache_usage = 0.0

    def scrape(self, noise: float) -> None:
        """What its metrics would say now."""
        self.num_requests_running = min(self.in_flight, 10)
        self.num_requests_waiting = max(self.in_flight - 10, 0)
        self.kv_cache_usage = min(self.in_flight / 16, 0.9) + 0.1 * noise

    def prefix_hit_tokens(self, request: Request) -> int:
        """Unused: KV events cost the router, not the policy."""
        return 0


def conversations(requests: int, replicas: int) -> list[Request]:
    """Sessions of `TURNS` turns behind one system prompt, each turn two blocks longer than the last."""
    rng = stream(0, "routing_scale")
    at_s = np.cumsum(rng.exponential(1 / (ARRIVALS_PER_REPLICA_PER_S * replicas), requests))
    # As many sessions at a time as there are places in flight, so that turns of one session lie far apart.
    lanes = IN_FLIGHT_PER_REPLICA * replicas
    found = []
    for index, now_s in enumerate(at_s.tolist()):
        turn, lane = divmod(index, lanes)
        session, turn = turn // TURNS * lanes + lane, turn % TURNS
        own = range((session + 1) * 1000, (session + 1) * 1000 + 2 * turn + 3)
        ids = [*range(SYSTEM_BLOCKS), *own]
        tokens = BLOCK_TOKENS * len(ids) + 100
        found.append(Request(index, now_s, tokens, 200, tenant=f"t{session % 50}", session=session, prefix_ids=ids))
    return found


def us_per_choice(case: str, replicas: int, requests: Sequence[Request]) -> float:
    """The mean time of a choice, the fleet being in steady state: each arrival ends the oldest request in flight."""
    name, options = CASES[case]
    variant = VariantInfo("pool", "m", "bf16", "H100", 1, 2.5, 0.2, 256, {}, kv_tokens=450_000)
    context = PolicyContext([variant], [0] * replicas, stream(0, "policy"), prefix_block_tokens=BLOCK_TOKENS)
    choose = make_policy(name, options, context).choose
    snapshots = [Seen(replica, variant) for replica in range(replicas)]
    rng = stream(0, "scrapes")
    in_flight: deque[tuple[Seen, int]] = deque()
    spent_s, scraped_s, clock = 0.0, -SCRAPE_S, time.perf_counter
    warm = len(requests) // 2
    for number, request in enumerate(requests):
        if request.arrival_s >= scraped_s + SCRAPE_S:
            scraped_s = request.arrival_s
            for seen, noise in zip(snapshots, rng.random(replicas).tolist(), strict=True):
                seen.scrape(noise)
        start_s = clock()
        chosen = choose(request, snapshots).replica
        if number >= warm:
            spent_s += clock() - start_s
        seen = snapshots[chosen]
        seen.in_flight += 1
        seen.in_flight_tokens += request.input_tokens
        in_flight.append((seen, request.input_tokens))
        if len(in_flight) > IN_FLIGHT_PER_REPLICA * replicas:
            done, tokens = in_flight.popleft()
            done.in_flight -= 1
            done.in_flight_tokens -= tokens
    return spent_s / (len(requests) - warm) * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--replicas", action="append", type=int, help="default: 10, 100 and 1000")
    parser.add_argument("--requests", type=int, default=20_000, help="replayed each time; the second half is measured")
    parser.add_argument("--repeat", type=int, default=1, help="the fastest of so many runs counts")
    arguments = parser.parse_args()
    sizes = arguments.replicas or [10, 100, 1000]
    print("us per choice      " + "".join(f"{n:>9,} replicas" for n in sizes) + "   growth")
    traffic = {n: conversations(arguments.requests, n) for n in sizes}
    for case in arguments.policy or CASES:
        cost = [min(us_per_choice(case, n, traffic[n]) for _ in range(arguments.repeat)) for n in sizes]
        growth = f"x{cost[-1] / cost[0]:.1f} for x{sizes[-1] / sizes[0]:g}"
        print(f"{case:<19}" + "".join(f"{us:>18.1f}" for us in cost) + f"   {growth}")


if __name__ == "__main__":
    main()
