"""What the tables of claim.py are made of: the claim's traffic varied, replays, and searches for fleets and rates.

Everything goes through what `simroute run` offers: the scenario, `--set` overrides, `--trace` and the summary.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from claim_fleets import Fleet, Found, Replica, ms

import simroute
from simroute.hardware.steptime import Batch
from simroute.scenario.build import build
from simroute.workload.columns import Coded
from simroute.workload.formats import write_trace
from simroute.workload.synth import MixSpec, synthesize
from simroute.yamlfile import parse

ROOT = Path(__file__).resolve().parents[1]
BEFORE, AFTER = ROOT / "scenarios/claim_static_tier.yaml", ROOT / "scenarios/claim_quant_routing.yaml"
HARD = "reasoning"
EASY = ("classification", "chat")
CLAIMED_P99_S, FORMER_P99_S = 0.115, 0.72
LEAST_SHARE = 0.99
"""Share of the answers that must reach their floor, as for `meets the targets`."""
MOST_REPLICAS, MOST_USD = 12, 50_000.0
"""Where searches end: replicas of a pool, price of a fleet a month."""
SPILLED = 0.01
"""A share of the requests that is more than chance, served by the large pool though they are easy."""
CONTEXT_TOKENS = 500
"""Context of the request whose next token `alone_s` times."""

BY_TIER = {"name": "static_tier", "options": {"tiers": {"enterprise": "large"}, "default": "small"}}
BY_CLASS = {"name": "static_tier", "options": {"tiers": {HARD: "large"}, "default": "small"}}
"""For traffic `by_class`, whose tiers are classes."""
QUANT_AWARE = {"name": "quant_aware"}
LEAST_REQUESTS = {"name": "least_requests"}
LEAST_ABOVE_FLOOR = {"name": "least_requests", "options": {"respect_quality_floor": True}}


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="simroute-claim-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def traffic(hard: float | None = None, cv: float = 1.0, seed: int | None = None, by_class: bool = False) -> Path:
    """The claim's traffic with this share of hard requests, variation of the gaps between arrivals and seed.

    What is left out is as in traces/claim.yaml. `by_class` writes the class where the tier stands.
    """
    data = parse((ROOT / "traces/claim.yaml").read_text(encoding="utf-8")).value
    arrivals = [(one["request_class"], one["arrivals"]) for one in data["streams"]]
    rate = sum(process["rate_per_s"] for _, process in arrivals)
    for request_class, process in arrivals:
        process["cv"] = cv
        if hard is not None:
            process["rate_per_s"] = rate * (hard / 2 if request_class == HARD else (1 - hard) / 4)
    data["streams"] = [one for one in data["streams"] if one["arrivals"]["rate_per_s"] > 0]
    trace = synthesize(MixSpec.model_validate(data), seed)
    if by_class:
        trace = trace.tagged(tier=Coded(trace.class_code, trace.class_names))
    path = _folder() / f"traffic-{hard}-{cv}-{seed}-{by_class}.parquet"
    write_trace(trace, path)
    return path


def replay(
    scenario: Path,
    policy: Mapping[str, Any],
    trace: Path,
    fleet: Fleet,
    *,
    rate_scale: float = 1.0,
    replicates: int = 0,
) -> dict[str, Any]:
    """The summary of one policy, as `simroute run SCENARIO --trace TRACE --set ...` writes it."""
    sets = [f"pools={fleet.as_yaml()}", f"policies={json.dumps([policy])}", f"traffic.rate_scale={rate_scale}"]
    loaded = simroute.load(scenario, overrides=sets, traces=[trace])
    (summary,) = simroute.run(loaded, jobs=1, replicates=replicates).summary()["policies"].values()
    return dict(summary)


def p99_s(summary: Mapping[str, Any], classes: Sequence[str] = ()) -> float | None:
    """p99 TTFT of all requests, or the worst of these classes; None where the fleet is overloaded."""
    parts = [summary["by_class"][name] for name in classes if name in summary["by_class"]] if classes else [summary]
    found = [part["ttft_s"]["p99"] for part in parts]
    return None if None in found else max(found, default=0.0)


def keeps_up(summary: Mapping[str, Any], limit_s: float) -> bool:
    """Whether p99 TTFT is within the limit."""
    p99 = p99_s(summary)
    return summary["stability"] != "OVERLOADED" and p99 is not None and p99 <= limit_s


def floor_kept(summary: Mapping[str, Any]) -> float:
    """Share of the answers from variants that reach their class's floor."""
    return 1.0 - float(summary["quality"]["below_floor_share"])


def outcome(summary: Mapping[str, Any]) -> tuple[str, str]:
    """p99 TTFT and the share of floors kept, for a table."""
    return ms(p99_s(summary)), f"{floor_kept(summary):.0%}"


def cheapest(
    larges: Sequence[Replica],
    smalls: Sequence[Replica],
    policy: Mapping[str, Any],
    trace: Path,
    limit_s: float,
    *,
    floor: bool = True,
    most_usd: float = MOST_USD,
) -> Found:
    """The cheapest of these fleets, within the ends of the search, whose p99 TTFT is within the limit.

    With `floor`, answers must reach their floor too. A fleet is not tried when another with the same large pool, or
    more of it, failed for no fault of its small pool.
    """
    hopeless: dict[Replica, int] = {}
    for fleet in _fleets(larges, smalls, most_usd):
        if fleet.larges <= hopeless.get(fleet.large, 0):
            continue
        summary = replay(AFTER, policy, trace, fleet)
        if keeps_up(summary, limit_s) and (not floor or floor_kept(summary) >= LEAST_SHARE):
            return fleet, summary
        if _large_alone_fails(summary, limit_s):
            hopeless[fleet.large] = fleet.larges
    return None


def cheapest_of_all(larges: Sequence[Replica], smalls: Sequence[Replica], trace: Path, limit_s: float) -> Found:
    """The cheaper of two pools under quant_aware and one large pool for everybody, both keeping the floors."""
    both = cheapest(larges, smalls, QUANT_AWARE, trace, limit_s)
    large = cheapest(larges, (), LEAST_REQUESTS, trace, limit_s, most_usd=both[0].usd_per_month if both else MOST_USD)
    return large or both


def _fleets(larges: Sequence[Replica], smalls: Sequence[Replica], most_usd: float) -> Iterator[Fleet]:
    """All fleets of these, by price."""
    counts = range(1, MOST_REPLICAS + 1)
    if smalls:
        fleets = [Fleet(a, n, b, m) for a, n, b, m in product(larges, counts, smalls, counts)]
    else:
        fleets = [Fleet(a, n) for a, n in product(larges, counts)]
    affordable = [fleet for fleet in fleets if fleet.usd_per_month <= most_usd]
    yield from sorted(affordable, key=lambda fleet: (fleet.usd_per_month, fleet.gpus))


def _large_alone_fails(summary: Mapping[str, Any], limit_s: float) -> bool:
    """Whether the small pool was in order, spilled nothing, and the large one was late: more small ones cannot help."""
    small, large = summary["by_pool"].get("small"), summary["by_pool"]["large"]
    hard = summary["by_class"].get(HARD)
    hard_share = hard["requests"]["arrived"] / summary["requests"]["arrived"] if hard else 0.0
    if small is None or (large["requests_share"] or 0.0) > hard_share + SPILLED:
        return False
    if large["stability"] == "OVERLOADED" and small["stability"] == "STABLE":
        return True
    easy_s, hard_s = p99_s(summary, EASY), p99_s(summary, (HARD,))
    return easy_s is not None and hard_s is not None and easy_s <= limit_s < hard_s


def highest_rate(fleet: Fleet, policy: Mapping[str, Any], trace: Path, limit_s: float) -> float:
    """The highest multiple of the trace's rate at which p99 TTFT is within the limit, to 3%; 0 for less than 1/64."""

    def inside(rate_scale: float) -> bool:
        return keeps_up(replay(AFTER, policy, trace, fleet, rate_scale=rate_scale), limit_s)

    high = 1 / 64
    while inside(high):
        high *= 2
    low = high / 2
    if high == 1 / 64:
        return 0.0
    while high / low > 1.03:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low


def alone_s(kind: Replica) -> tuple[Callable[[int], float], float]:
    """(TTFT of a prompt of so many tokens, time of one more token) of a replica with nothing else to do."""
    loaded = simroute.load(AFTER, overrides=[f"pools={Fleet(kind, 1).as_yaml()}"], traces=[traffic()])
    (pool,) = build(loaded).pools
    most = pool.engine.max_num_batched_tokens

    def ttft_s(tokens: int) -> float:
        chunks = [(start, min(most, tokens - start)) for start in range(0, tokens, most)]
        steps = (Batch(1, n, n * start + n * (n + 1) // 2, 0, 0, 1) for start, n in chunks)
        return pool.request.overhead_ms / 1e3 + sum(map(pool.step_time.duration_s, steps))

    base_s, context_s = pool.step_time.decode_line(1)
    return ttft_s, base_s + CONTEXT_TOKENS * context_s
