"""The tables of claim.py that vary what the claim rests on: hard requests, bursts, GPUs, int4, quality, the limit.

Each function prints one table; its docstring is the table's title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    QUANTIZED_LARGE,
    QUANTIZED_SMALL,
    SMALL,
    Fleet,
    Replica,
    described,
    ms,
    saved,
    usd,
)
from claim_replays import (
    AFTER,
    BEFORE,
    BY_CLASS,
    BY_TIER,
    CLAIMED_P99_S,
    FORMER_P99_S,
    LEAST_ABOVE_FLOOR,
    LEAST_REQUESTS,
    QUANT_AWARE,
    alone_s,
    cheapest,
    floor_kept,
    highest_rate,
    outcome,
    p99_s,
    replay,
    traffic,
)

from simroute.units import HOURS_PER_MONTH, SECONDS_PER_HOUR

BASE_RATE = 6.0
"""Requests a second of traces/claim.yaml."""
REPLICATES = 20


def show_share() -> None:
    """Share of hard requests."""
    _sweep("hard requests", [(f"{hard:.0%}", {"hard": hard}) for hard in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)])


def show_burst() -> None:
    """Burstiness: variation of the gaps between the arrivals of each stream (Poisson: 1)."""
    _sweep("variation of gaps", [(f"{cv:g}", {"cv": cv}) for cv in (0.5, 1.0, 2.0, 4.0)])


def _sweep(what: str, points: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Both fleets, and the cheapest of either kind within 720 ms, at each point: a title and how the traffic varies."""
    rows = []
    for title, varied in points:
        plain, by_class = traffic(**varied), traffic(**varied, by_class=True)
        before = replay(BEFORE, BY_TIER, plain, FORMER)
        after = [
            ms(p99_s(replay(AFTER, policy, trace, CLAIMED)))
            for policy, trace in ((BY_CLASS, by_class), (QUANT_AWARE, plain))
        ]
        sixteen = cheapest(FP16_LARGE, FP16_SMALL, QUANT_AWARE, plain, FORMER_P99_S)
        quantized = cheapest(QUANTIZED_LARGE, QUANTIZED_SMALL, QUANT_AWARE, plain, FORMER_P99_S)
        cells = (
            ms(p99_s(before)),
            f"{floor_kept(before):.0%}",
            *after,
            described(sixteen)[1],
            *described(quantized)[::-1],
        )
        rows.append((title, *cells, saved(quantized, sixteen)))
    header = ("before: p99 ms", "floor kept", "after, static by class", "after, quant_aware", "16 bits", "quantized")
    print_table((what, *header, "its fleet", "saved"), rows)


def show_dynamic() -> None:
    """What the fleet after carries within 720 ms, requests a second, by how requests are routed."""
    rows = []
    for hard in (0.01, 0.05, 0.2, 0.4):
        cells = []
        for policy, by_class in ((BY_CLASS, True), (QUANT_AWARE, False), (LEAST_ABOVE_FLOOR, False)):
            most = highest_rate(CLAIMED, policy, traffic(hard=hard, by_class=by_class), FORMER_P99_S)
            cells.append(f"{BASE_RATE * most:.1f}")
        rows.append((f"{hard:.0%}", *cells))
    print_table(("hard requests", "static by class", "quant_aware", "least_requests above the floor"), rows)


def show_gpus() -> None:
    """Other fleets that the two bills buy: p99 at 6 requests a second, and what they carry within 720 ms."""
    fleets = (
        ("before", BY_TIER, FORMER),
        ("before", BY_TIER, Fleet(FP16_LARGE[1], 1, FP16_SMALL[1], 4)),
        ("before", BY_TIER, Fleet(FP16_LARGE[2], 3, FP16_SMALL[0], 4)),
        ("after", QUANT_AWARE, CLAIMED),
        ("after", QUANT_AWARE, Fleet(INT4_LARGE[0], 1, FP8_SMALL[1], 1)),
        ("after", QUANT_AWARE, Fleet(INT4_LARGE[2], 2, INT4_SMALL[0], 1)),
        ("after", QUANT_AWARE, Fleet(FP8_LARGE[1], 2, FP8_SMALL[1], 1)),
    )
    rows = []
    for title, policy, fleet in fleets:
        most = BASE_RATE * highest_rate(fleet, policy, traffic(), FORMER_P99_S)
        thousands = most * SECONDS_PER_HOUR * HOURS_PER_MONTH / 1e3
        cost = f"${fleet.usd_per_month / thousands:.2f}" if most else "-"
        summary = replay(AFTER, policy, traffic(), fleet)
        rows.append((title, str(fleet), usd(fleet.usd_per_month), *outcome(summary), f"{most:.1f}", cost))
    print_table(
        ("", "fleet", "USD a month", "p99 TTFT ms", "floor kept", "requests/s within 720 ms", "USD per 1,000"), rows
    )


def show_int4() -> None:
    """The same GPUs with weights of 16, 8 and 4 bits: alone, and at the highest rate within 720 ms."""
    easy, hard = traffic(hard=0.0), traffic(hard=1.0)
    rows = []
    for model, gpu, tp, schemes, trace in (
        (SMALL, H100, 1, ("bf16", "fp8", "w4a16", "awq-int4"), easy),
        (SMALL, A100, 1, ("bf16", "w8a8-int8", "w4a16"), easy),
        (LARGE, H100, 2, ("bf16", "fp8", "w4a16", "awq-int4"), hard),
        (LARGE, H100, 4, ("bf16", "fp8"), hard),
        (LARGE, A100, 4, ("bf16",), hard),
    ):
        for scheme in schemes:
            fleet = Fleet(Replica(model, scheme, gpu, tp), 1)
            ttft_s, token_s = alone_s(fleet.large)
            most = highest_rate(fleet, LEAST_REQUESTS, trace, FORMER_P99_S)
            full = replay(AFTER, LEAST_REQUESTS, trace, fleet, rate_scale=most) if most else None
            tpot_ms = f"{full['tpot_s']['p50'] * 1e3:.1f}" if full else "-"
            rows.append((str(fleet.large), f"{token_s * 1e3:.1f}", ms(ttft_s(512)), f"{BASE_RATE * most:.1f}", tpot_ms))
    header = ("a token alone, ms", "512-token prompt alone, ms", "requests/s within 720 ms", "TPOT p50 there, ms")
    print_table(("replica", *header), rows)


def show_kernels() -> None:
    """Both fleets with step times drawn within their error; the one after also with AWQ in place of Marlin kernels."""
    awq = Fleet(Replica(LARGE, "awq-int4", H100), 1, Replica(SMALL, "awq-int4", A100), 1)
    rows = []
    for title, scenario, policy, fleet in (
        ("before, static by tier", BEFORE, BY_TIER, FORMER),
        ("after, quant_aware", AFTER, QUANT_AWARE, CLAIMED),
        ("the same, AWQ kernels", AFTER, QUANT_AWARE, awq),
    ):
        summary = replay(scenario, policy, traffic(), fleet, replicates=REPLICATES)
        low_s, high_s = summary["intervals"]["ttft_s.p99"]
        met = f"{summary['replicates']['meets_targets']} of {REPLICATES}"
        rows.append((title, usd(fleet.usd_per_month), *outcome(summary), f"{ms(low_s)} to {ms(high_s)}", met))
    print_table(("fleet", "USD a month", "p99 TTFT ms", "floor kept", "90% interval", "meets the targets in"), rows)


def show_quality() -> None:
    """The cheapest quantized fleet within 720 ms when int4 is not good enough for hard requests, or for any."""
    rows = []
    for title, larges, smalls in (
        ("every floor", QUANTIZED_LARGE, QUANTIZED_SMALL),
        ("not that of hard requests", FP8_LARGE, QUANTIZED_SMALL),
        ("none", FP8_LARGE, FP8_SMALL),
    ):
        best = cheapest(larges, smalls, QUANT_AWARE, traffic(), FORMER_P99_S)
        rows.append((title, *described(best), outcome(best[1])[0] if best else "-"))
    print_table(("int4 reaches", "cheapest quantized fleet", "USD a month", "p99 TTFT ms"), rows)


def show_claimed_p99() -> None:
    """What a p99 TTFT within 115 ms costs, and within less strict limits."""
    larges = (*QUANTIZED_LARGE, Replica(LARGE, "fp8", H100, 4), Replica(LARGE, "fp8", H100, 8))
    rows = []
    for hard in (0.01, 0.02, 0.05, 0.2, 0.4):
        for limit_s in (CLAIMED_P99_S, 0.25, FORMER_P99_S):
            best = cheapest(larges, QUANTIZED_SMALL, QUANT_AWARE, traffic(hard=hard), limit_s)
            rows.append((f"{hard:.0%}", ms(limit_s), *described(best), outcome(best[1])[0] if best else "-"))
    print_table(("hard requests", "p99 within ms", "cheapest quantized fleet", "USD a month", "p99 TTFT ms"), rows)
