"""Prints the tables of docs/claim.md: a fleet of 70B replicas in fp16 against quantized variants behind quant_aware.

Usage: python benchmarks/claim.py [--table NAME ...]. All tables take some ten minutes on one core. Every number comes
from `simroute run` on the two claim scenarios and overrides of them; a run prints the same again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import claim_sweeps
import numpy as np
from accuracy_figures import print_table
from claim_fleets import (
    A100,
    CLAIMED,
    FORMER,
    FP8_LARGE,
    FP8_SMALL,
    FP16_LARGE,
    FP16_SMALL,
    H100,
    INT4_LARGE,
    INT4_SMALL,
    LARGE,
    PRO,
    QUANTIZED_LARGE,
    QUANTIZED_SMALL,
    Replica,
    described,
    usd,
)
from claim_replays import (
    AFTER,
    BEFORE,
    BY_CLASS,
    BY_TIER,
    CLAIMED_P99_S,
    EASY,
    FORMER_P99_S,
    HARD,
    LEAST_REQUESTS,
    QUANT_AWARE,
    alone_s,
    cheapest,
    floor_kept,
    outcome,
    p99_s,
    replay,
    traffic,
)

from simroute.hardware import catalogue
from simroute.units import HOURS_PER_MONTH
from simroute.workload.formats import read_trace

FORMER_USD, CLAIMED_USD = 18_400.0, 4_050.0
SEEDS = (1, 2, 3, 4, 5)
LABEL_TOKENS = 200
"""Prompt of the answers whose length `show_alone` bounds."""
LONGEST_PROMPT = 16_384
"""Where the search for the longest prompt ends."""


def show_prices() -> None:
    """GPUs that the two bills buy."""
    rows = []
    for offer in catalogue.prices():
        if offer.gpu in (H100, A100, PRO, "L40S", "A10G") and offer.term == "on_demand":
            month = offer.usd_per_gpu_hour * HOURS_PER_MONTH
            counts = (f"{bill / month:.1f}" for bill in (FORMER_USD, CLAIMED_USD))
            rows.append((f"{offer.gpu}, {offer.provider}", f"${offer.usd_per_gpu_hour:.2f}", *counts))
    print_table(("GPU, provider", "USD an hour", f"for {usd(FORMER_USD)}", f"for {usd(CLAIMED_USD)}"), rows)


def show_alone() -> None:
    """What 115 and 720 ms allow on an idle replica: the longest prompt by TTFT, the longest answer by E2E."""
    trace = read_trace(traffic())
    prompts = trace.input_tokens[trace.class_code == trace.class_names.index(HARD)]
    larger = (Replica(LARGE, "fp8", H100, 4), Replica(LARGE, "fp8", H100, 8))
    rows = []
    for kind in (*FP16_LARGE, *INT4_LARGE, *FP8_LARGE, *larger, *INT4_SMALL, *FP8_SMALL[1:], *FP16_SMALL):
        ttft_s, token_s = alone_s(kind)
        claimed, former = (_longest(ttft_s, limit_s) for limit_s in (CLAIMED_P99_S, FORMER_P99_S))
        answers = [1 + int((limit_s - ttft_s(LABEL_TOKENS)) / token_s) for limit_s in (CLAIMED_P99_S, FORMER_P99_S)]
        late = f"{np.mean(prompts > claimed):.1%}" if kind.model == LARGE else "-"
        rows.append((str(kind), usd(kind.usd_per_month), f"{claimed:,}", f"{former:,}", late, *map(str, answers)))
    header = ("prompt within 115 ms", "within 720 ms", "hard prompts beyond 115 ms", "answer within 115 ms", "720 ms")
    print_table(("replica", "USD a month", *header), rows)


def _longest(ttft_s: Callable[[int], float], limit_s: float) -> int:
    """The longest prompt with its first token within the limit."""
    low, high = 0, LONGEST_PROMPT
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if ttft_s(middle) <= limit_s else (low, middle)
    return low


def show_base() -> None:
    """Both fleets on 6 requests a second, drawn five times: median and range."""
    rows = []
    for title, scenario, policy, fleet in (
        ("before, static by tier", BEFORE, BY_TIER, FORMER),
        ("before, quant_aware", BEFORE, QUANT_AWARE, FORMER),
        ("after, quant_aware", AFTER, QUANT_AWARE, CLAIMED),
        ("after, least_requests", AFTER, LEAST_REQUESTS, CLAIMED),
    ):
        runs = [replay(scenario, policy, traffic(seed=seed), fleet) for seed in SEEDS]
        cells = [_spread([p99_s(run, classes) for run in runs]) for classes in ((), EASY, (HARD,))]
        whole = _spread([run["e2e_s"]["p99"] for run in runs], digits=1, unit=1.0)
        kept = f"{median(floor_kept(run) for run in runs):.0%}"
        rows.append((title, usd(runs[0]["cost_usd_per_month"]), *cells, whole, kept))
    print_table(("fleet, policy", "USD a month", "p99 TTFT ms", "easy", "hard", "p99 E2E s", "floor kept"), rows)


def _spread(values: Sequence[float | None], digits: int = 0, unit: float = 1e3) -> str:
    """Median (least to most), or how many of the runs were overloaded."""
    known = [value * unit for value in values if value is not None]
    if len(known) < len(values):
        return f"overloaded in {len(values) - len(known)} of {len(values)}"
    return f"{median(known):,.{digits}f} ({min(known):,.{digits}f} to {max(known):,.{digits}f})"


def show_rates() -> None:
    """p99 TTFT of both fleets at other rates, drawn five times: median and range."""
    rows = []
    for rate in (1.5, 3.0, 4.5, 5.5, 5.75, 6.0, 7.0, 9.0, 12.0):
        scale = rate / claim_sweeps.BASE_RATE
        cells = []
        for scenario, policy, fleet in ((BEFORE, BY_TIER, FORMER), (AFTER, QUANT_AWARE, CLAIMED)):
            runs = [replay(scenario, policy, traffic(seed=seed), fleet, rate_scale=scale) for seed in SEEDS]
            cells.append(_spread([p99_s(run) for run in runs]))
        rows.append((f"{rate:g}", *cells))
    print_table(("requests a second", "before, p99 TTFT ms", "after, p99 TTFT ms"), rows)


def show_sources() -> None:
    """Where the saving comes from: the cheapest fleet of each kind within 720 ms at 6 requests a second."""
    plain, tagged = traffic(), traffic(by_class=True)
    everything = (*QUANTIZED_LARGE, *FP16_LARGE), (*QUANTIZED_SMALL, *FP16_SMALL)
    before = replay(BEFORE, BY_TIER, plain, FORMER)
    rows = [("the fleet before", str(FORMER), usd(FORMER.usd_per_month), *outcome(before))]
    for title, larges, smalls, policy, trace, floor in (
        ("16 bits, static by tier", FP16_LARGE, FP16_SMALL, BY_TIER, plain, False),
        ("16 bits, 70B for everybody", FP16_LARGE, (), LEAST_REQUESTS, plain, True),
        ("16 bits, static by class", FP16_LARGE, FP16_SMALL, BY_CLASS, tagged, True),
        ("16 bits, quant_aware", FP16_LARGE, FP16_SMALL, QUANT_AWARE, plain, True),
        ("8 bits, quant_aware", FP8_LARGE, FP8_SMALL, QUANT_AWARE, plain, True),
        ("8 bits, 70B for everybody", FP8_LARGE, (), LEAST_REQUESTS, plain, True),
        ("int4, 70B for everybody", INT4_LARGE, (), LEAST_REQUESTS, plain, True),
        ("int4, static by class", INT4_LARGE, INT4_SMALL, BY_CLASS, tagged, True),
        ("int4, quant_aware", INT4_LARGE, INT4_SMALL, QUANT_AWARE, plain, True),
        ("anything, quant_aware", *everything, QUANT_AWARE, plain, True),
    ):
        best = cheapest(larges, smalls, policy, trace, FORMER_P99_S, floor=floor)
        rows.append((title, *described(best), *(outcome(best[1]) if best else ("-", "-"))))
    print_table(("kind", "cheapest fleet", "USD a month", "p99 TTFT ms", "floor kept"), rows)


TABLES: dict[str, Callable[[], None]] = {
    "prices": show_prices,
    "alone": show_alone,
    "base": show_base,
    "rates": show_rates,
    "sources": show_sources,
    "p99": claim_sweeps.show_claimed_p99,
    "share": claim_sweeps.show_share,
    "dynamic": claim_sweeps.show_dynamic,
    "gpus": claim_sweeps.show_gpus,
    "int4": claim_sweeps.show_int4,
    "kernels": claim_sweeps.show_kernels,
    "quality": claim_sweeps.show_quality,
    "burst": claim_sweeps.show_burst,
}


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=TABLES, action="append", help="repeatable; default: all")
    for name in parser.parse_args().table or TABLES:
        print(f"\n### {name}: {TABLES[name].__doc__}\n", flush=True)
        TABLES[name]()


if __name__ == "__main__":
    main()
