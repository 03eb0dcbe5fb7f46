"""Prints a Markdown table of every routing policy on one scenario, the best first.

Usage: python benchmarks/policies_table.py [SCENARIO] [--policy NAME]... [--set PATH=VALUE]... See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simroute.policy.routing import POLICIES
from simroute.report.text import number, percent, usd
from simroute.results.compare import Summary, floor_kept, rank
from simroute.scenario.loader import load
from simroute.scenario.run import run

SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "mixed_traffic.yaml"
RATE_SCALE = 2.0
"""That scenario's traffic leaves its fleet so much room that nearly every policy does; at twice the rate it fits."""
ANSWER_TOKENS = {"chat": 310, "coding": 265, "reasoning": 1600, "extraction": 155, "classification": 3}
"""The mean of each class's answers in traces/mixed_day.parquet, which an operator would know from the logs."""
HARDNESS = {"chat": 0.35, "coding": 0.5, "reasoning": 0.75, "extraction": 0.45, "classification": 0.15}
"""Mean difficulty score of each class; assumed."""
CLASS_SHARES = {"chat": 43, "coding": 20, "reasoning": 8, "extraction": 12, "classification": 17}
OPTIONS: dict[str, dict[str, Any]] = {
    "static_tier": {
        "tiers": {"free": "small-int4", "standard": "small-fp8", "premium": "large-fp8"},
        "default": "small-fp8",
    },
    "quant_aware": {"expected_output_tokens": ANSWER_TOKENS},
    "join_shortest_expected_wait": {"expected_output_tokens": ANSWER_TOKENS},
    "latency_target": {"expected_output_tokens": ANSWER_TOKENS, "slack": 0.8},
    "cost_aware": {"expected_output_tokens": ANSWER_TOKENS, "slack": 0.8},
    "length_split": {
        "splits": [{"up_to_tokens": 600, "pool": "small-int4"}, {"up_to_tokens": 2500, "pool": "small-fp8"}],
        "rest": "large-fp8",
        "spill": True,
    },
    "difficulty_threshold": {
        "weak": "small-fp8",
        "strong": "large-fp8",
        "strong_share": 0.3,
        "difficulty": {name: {"mean": mean, "concentration": 10} for name, mean in HARDNESS.items()},
        "class_shares": CLASS_SHARES,
    },
    "cascade": {"chain": ["small-fp8", "large-fp8"]},
    "spillover": {"to": "somebody-else", "requests_per_minute": 120},
    "two_level": {"variant": "quant_aware", "replica": "prefix_affinity"},
}
"""What each policy is told; the others have their defaults."""
EXTERNAL = {
    "name": "somebody-else",
    "model": "Llama-3.3-70B",
    "usd_per_1m_input_tokens": 0.6,
    "usd_per_1m_output_tokens": 0.8,
    "ttft_s": 0.5,
    "tpot_s": 0.015,
    "spread": 0.3,
    "requests_per_minute": 120,
    "quality": {"default": 0.86, "coding": 0.88, "reasoning": 0.91, "extraction": 0.92},
}
"""The endpoint that `spillover` alone may use. Price, speed and rate limit are assumed."""
COLUMNS = (
    "policy",
    "TTFT p50, s",
    "p99",
    "E2E p99, s",
    "within targets",
    "floor kept",
    "USD a month",
    "prefix hits",
    "state",
)


def options_of(name: str) -> dict[str, Any]:
    """Options of policy `name`: those above, and quality floors kept wherever a policy can be told to."""
    options = dict(OPTIONS.get(name, {}))
    if "respect_quality_floor" in POLICIES[name].Options.model_fields:
        options["respect_quality_floor"] = True
    return options


def summaries_of(scenario: Path, names: Iterable[str], overrides: Sequence[str]) -> Iterator[Summary]:
    """The summary of every policy; those that need somebody else's endpoint get it, and no other does."""
    spilling = [name for name in names if name == "spillover"]
    own = [name for name in names if name not in spilling]
    for chosen, more in ((own, []), (spilling, [f"external=[{json.dumps(EXTERNAL)}]"])):
        if chosen:
            policies = json.dumps([{"name": name, "options": options_of(name)} for name in chosen])
            found = run(load(scenario, overrides=[*overrides, *more, f"policies={policies}"]))
            yield from (result.summary for result in found.results)


def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """One row."""
    name = summary["policy"]
    return (
        f"[`{name}`](#{name})",
        number(summary["ttft_s"]["p50"]),
        number(summary["ttft_s"]["p99"]),
        number(summary["e2e_s"]["p99"]),
        percent(summary["slo_attainment"]),
        percent(floor_kept(summary)),
        usd(summary["cost_usd_per_month"]),
        percent(summary["prefix_hit_rate"]),
        summary["stability"],
    )


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path, default=SCENARIO)
    parser.add_argument("--policy", action="append", choices=list(POLICIES), metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides")
    arguments = parser.parse_args()
    names = arguments.policy or list(POLICIES)
    usual = [f"traffic.rate_scale={RATE_SCALE}"] if arguments.scenario == SCENARIO else []
    summaries = list(summaries_of(arguments.scenario, names, [*usual, *arguments.overrides]))
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|---|{'---:|' * (len(COLUMNS) - 2)}---|")
    for summary in rank(summaries):
        print(f"| {' | '.join(cells(summary))} |")


if __name__ == "__main__":
    main()
