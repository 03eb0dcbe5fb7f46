"""The summary of one policy's run: the numbers of summary.json. Imports units and, of results, what it summarises.

`docs/results.md` defines every key. Definitions are those of `vllm bench serve`, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simroute.results.extrapolation import StepTimes, extrapolated
from simroute.results.latency import (
    PERCENTILES,
    Latencies,
    generated_tokens,
    itl_statistics,
    latencies,
    statistics,
)
from simroute.results.run import FleetRun, ReplicaTotals, Status
from simroute.results.shares import MOST_TENANTS, busiest_tenants, cost_shares, fairness
from simroute.results.slo import Slo, slo_for
from simroute.results.stability import Stability, pool_stability, stability
from simroute.units import HOURS_PER_MONTH, SECONDS_PER_HOUR, SECONDS_PER_WEEK

Quality = Callable[[str, str], tuple[float, float, float] | None]
"""`quality(pool, request_class)` is (mean, low, high), each in 0..1, or None where nothing is known."""
Bools = NDArray[np.bool_]

NO_FLOORS: Mapping[str, float] = MappingProxyType({})
NO_STEP_TIMES: Mapping[str, StepTimes] = MappingProxyType({})
SIGNIFICANT_DIGITS = 9
_OVERLOADED_TOP = 0.5


def summarise(
    run: FleetRun,
    slo: Mapping[str, Slo],
    quality: Quality,
    quality_floor: Mapping[str, float] = NO_FLOORS,
    step_times: Mapping[str, StepTimes] = NO_STEP_TIMES,
) -> dict[str, Any]:
    """Everything summary.json says about `run`; the same run gives the same dict, to the last digit.

    `slo` maps a request class (or `default`) to its targets, `quality_floor` each class that has one to the least mean
    quality (0..1) it accepts, `step_times` a pool to what its step times rest on. Numbers are rounded to
    `SIGNIFICANT_DIGITS`; what is undefined (no completed request, say) is None, never NaN.
    """
    times = latencies(run)
    arrived = run.arrival_s <= run.end_s
    met = _met(run, times, slo)
    label = stability(run)
    top = _sound_top(run, times, arrived, label)
    paid = cost_shares(run, step_times)
    groups = partial(_by_group, run, times, met, arrived, paid, top)
    served = fairness(run, times, met, arrived)
    completed_tokens = _completed_tokens(run)
    beyond = extrapolated(run, step_times)
    beyond_range = [f"pool {pool}: {reason}" for pool, reasons in beyond.items() for reason in reasons]
    summary = {
        "policy": run.policy,
        "stability": str(label),
        "estimated": any(r.estimated for r in run.replicas),
        "extrapolated": beyond_range,
        "interrupted": run.interrupted,
        "extrapolated_month": _traffic_s(run) < SECONDS_PER_WEEK,
        "duration_s": run.end_s,
        "requests": _request_counts(run, arrived),
        **_ends(run),
        **_latency_statistics(times, top),
        "itl_s": _sound(itl_statistics(run.itl), top),
        "slo_attainment": _ratio(met.sum(), arrived.sum()),
        "goodput_rps": _ratio(met.sum(), run.end_s),
        "output_tokens_per_s": _ratio(completed_tokens.sum(), run.end_s),
        "preemptions": sum(r.preemptions for r in run.replicas),
        "prefix_hit_rate": _prefix_hit_rate(run.replicas),
        "kv_usage": _kv_usage(run, range(len(run.replicas))),
        "gpu_busy": _ratio(
            sum(r.busy_s * r.gpus for r in run.replicas), sum(r.gpus * r.billed_s for r in run.replicas)
        ),
        "gpus": _mean_gpus(run.replicas, run.end_s),
        "fleet": _fleet(run),
        **_cost(run.replicas, run.end_s, int(completed_tokens.sum())),
        "quality": _quality(run, quality, quality_floor),
        "by_class": groups(run.trace.class_code, run.trace.class_names),
        "by_tier": groups(run.trace.tier_code, run.trace.tier_names),
        "by_tenant": groups(run.trace.tenant_code, run.trace.tenant_names, busiest_tenants(run, arrived)),
        "fairness": served,
        "by_pool": _by_pool(run, step_times, beyond),
    }
    summary["notes"] = [
        *_notes(run, times, slo, label, top, int(served["tenants"])),
        *(f"extrapolated: {line}" for line in beyond_range),
    ]
    return rounded(summary)  # type: ignore[no-any-return]


def rounded(value: Any) -> Any:
    """`value` as plain JSON data: floats to `SIGNIFICANT_DIGITS`, NaN and infinities None, numpy numbers unwrapped."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    return value


def _met(run: FleetRun, times: Latencies, slo: Mapping[str, Slo]) -> Bools:
    """Which requests meet the targets of their class."""
    met = np.zeros(len(run.trace), dtype=np.bool_)
    for code, name in enumerate(run.trace.class_names):
        members = run.trace.class_code == code
        met[members] = slo_for(slo, name).met(
            Latencies(times.ttft_s[members], times.tpot_s[members], times.e2e_s[members])
        )
    return met


def _sound_top(run: FleetRun, times: Latencies, arrived: Bools, label: Stability) -> float:
    """The highest quantile that can be stated.

    Overloaded: no tail at all. Cut off: requests still unfinished after more time than 99% of the others needed would
    all lie above the quantile sought, so a share of them of 1 - q or more hides quantile q. So do requests that failed
    or whose clients left: they had waited, in vain.
    """
    if label is Stability.OVERLOADED:
        return _OVERLOADED_TOP
    unfinished = arrived & (run.status == Status.UNFINISHED)
    in_vain = int(np.count_nonzero(arrived & np.isin(run.status, (Status.FAILED, Status.CANCELLED))))
    if not unfinished.any() and not in_vain:
        return 1.0
    usual_s = statistics(times.e2e_s)["p99"]
    age_s = run.end_s - run.arrival_s[unfinished]
    late = in_vain + int(np.count_nonzero(~(age_s <= usual_s)))
    return 1.0 - late / (late + int(np.count_nonzero(run.status == Status.COMPLETED)))


def _sound(stats: dict[str, float], top: float) -> dict[str, float]:
    """`stats` with NaN for the percentiles beyond quantile `top`."""
    hidden = {f"p{p}": math.nan for p in PERCENTILES if p / 100 > top}
    return stats | hidden


def _latency_statistics(times: Latencies, top: float) -> dict[str, dict[str, float]]:
    columns = (("ttft_s", times.ttft_s), ("tpot_s", times.tpot_s), ("e2e_s", times.e2e_s))
    return {name: _sound(statistics(values), top) for name, values in columns}


def _traffic_s(run: FleetRun) -> float:
    """Seconds of traffic that were replayed: from 0 to the last arrival."""
    came = run.arrival_s[run.arrival_s <= run.end_s]
    return float(came.max(initial=0.0))


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else math.nan


def _request_counts(run: FleetRun, among: Bools) -> dict[str, int]:
    """How the requests `among` (a mask) ended."""
    ended = np.bincount(run.status[among], minlength=len(Status))
    order = (Status.COMPLETED, Status.REJECTED, Status.FAILED, Status.CANCELLED, Status.UNFINISHED)
    return {"arrived": int(ended.sum())} | {status.name.lower(): int(ended[status]) for status in order}


def _reasons(run: FleetRun, status: Status) -> dict[str, int]:
    """Why requests ended with `status`, and how many."""
    codes = run.reason_code[run.status == status]
    return {name: n for i, name in enumerate(run.reasons) if (n := int(np.count_nonzero(codes == i)))}


def _ends(run: FleetRun) -> dict[str, Any]:
    """Why requests got no answer, how often clients asked and how often requests were sent to replicas."""
    return {
        "reject_reasons": _reasons(run, Status.REJECTED),
        "failure_reasons": _reasons(run, Status.FAILED),
        "cancel_reasons": _reasons(run, Status.CANCELLED),
        "tries": int(run.times_asked.sum()),
        "attempts": int(run.times_sent.sum()),
    }


def _prefix_hit_rate(replicas: Sequence[ReplicaTotals]) -> float:
    return _ratio(sum(r.prefix_hit_tokens for r in replicas), sum(r.prefix_queried_tokens for r in replicas))


def _kv_usage(run: FleetRun, columns: Sequence[int]) -> dict[str, float]:
    """Mean and 99th percentile over the samples of these replicas, each sample and ready replica counting once."""
    samples = run.timeline.kv_usage[:, list(columns)].astype(np.float64)
    if run.timeline.ready is not None:
        samples = samples[run.timeline.ready[:, list(columns)]]
    if not samples.size:
        return {"mean": math.nan, "p99": math.nan}
    return {"mean": float(samples.mean()), "p99": float(np.percentile(samples, 99))}


def _cost(replicas: Sequence[ReplicaTotals], duration_s: float, output_tokens: int) -> dict[str, float]:
    """The bill, busy or not: replicas are rented by the hour, and other people's endpoints paid by the token."""
    run_usd = sum(r.usd for r in replicas)
    hourly = (
        run_usd / (duration_s / SECONDS_PER_HOUR) if duration_s else sum(r.usd_per_hour for r in replicas if r.starts)
    )
    return {
        "cost_usd_per_month": hourly * HOURS_PER_MONTH,
        "cost_usd_per_1m_output_tokens": _ratio(run_usd * 1e6, output_tokens),
    }


def _mean_gpus(replicas: Sequence[ReplicaTotals], duration_s: float) -> float:
    """GPUs that were paid for, averaged over the run: a whole number of a fleet that never changes."""
    if not duration_s:
        return sum(r.gpus for r in replicas if r.starts)
    return _whole(sum(r.gpus * r.billed_s for r in replicas) / duration_s)


def _whole(number: float) -> float:
    """`number`, as a whole one if it is one but for rounding."""
    near = math.isfinite(number) and abs(number - round(number)) < 1e-9
    return round(number) if near else number


def _fleet(run: FleetRun) -> dict[str, Any]:
    """What happened to the replicas, and how long some of them were up."""
    ready, held = run.timeline.ready, run.timeline.held
    ours = [number for number, totals in enumerate(run.replicas) if totals.gpus]
    return {
        "starts": sum(run.replicas[i].starts for i in ours),
        "crashes": sum(run.replicas[i].crashes for i in ours),
        "ready_share": _ratio(sum(run.replicas[i].ready_s for i in ours), sum(run.replicas[i].billed_s for i in ours)),
        "without_replica_share": 0.0 if ready is None else _ratio((~ready[:, ours].any(axis=1)).sum(), len(ready)),
        "most_held": 0 if held is None else int(held.max(initial=0)),
        "token_usd": sum(totals.token_usd for totals in run.replicas),
    }


def _pools(run: FleetRun) -> dict[str, list[int]]:
    """Pool name to its replicas' positions, in the fleet's order."""
    pools: dict[str, list[int]] = {}
    for position, totals in enumerate(run.replicas):
        pools.setdefault(totals.pool, []).append(position)
    return pools


def _served(run: FleetRun) -> NDArray[np.int64]:
    """Completed requests by (replica, class), shape (replicas, classes)."""
    completed = (run.status == Status.COMPLETED) & (run.replica >= 0)
    classes = len(run.trace.class_names)
    cell = run.replica[completed] * classes + run.trace.class_code[completed]
    return np.bincount(cell, minlength=len(run.replicas) * classes).reshape(len(run.replicas), classes)


def _completed_tokens(run: FleetRun) -> NDArray[np.int64]:
    """Output tokens of completed requests by replica, shape (replicas,)."""
    completed = (run.status == Status.COMPLETED) & (run.replica >= 0)
    tokens = np.zeros(len(run.replicas), dtype=np.int64)
    np.add.at(tokens, run.replica[completed], generated_tokens(run)[completed])
    return tokens


def _quality(run: FleetRun, quality: Quality, floors: Mapping[str, float]) -> dict[str, Any]:
    """Expected quality of the completed answers: of all, with its plausible range, and by class.

    Averages run over the answers whose quality is known; `known_share` says how many those are. Below its floor is an
    answer of a variant whose mean quality for the class is below the class's floor, or unknown.
    """
    served = _served(run)
    totals = {name: np.zeros(4) for name in run.trace.class_names}  # answers, then their summed mean, low, high
    below = dict.fromkeys(run.trace.class_names, 0)
    for pool, positions in _pools(run).items():
        for name, answers in zip(run.trace.class_names, served[positions].sum(axis=0), strict=True):
            score = quality(pool, name) if answers else None
            if score is not None:
                totals[name] += answers * np.array([1.0, *score])
            if name in floors and (score is None or score[0] < floors[name]):
                below[name] += int(answers)
    overall: NDArray[np.float64] = sum(totals.values(), np.zeros(4))
    mean, low, high = (_ratio(part, overall[0]) for part in overall[1:])
    answers_of = dict(zip(run.trace.class_names, served.sum(axis=0), strict=True))
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "known_share": _ratio(overall[0], served.sum()),
        "below_floor_share": _ratio(sum(below.values()), served.sum()),
        "by_class": {name: _ratio(total[1], total[0]) for name, total in totals.items()},
        "below_floor_by_class": {name: _ratio(below[name], answers_of[name]) for name in totals},
    }


def _by_group(
    run: FleetRun,
    times: Latencies,
    met: Bools,
    arrived: Bools,
    paid: NDArray[np.float64],
    top: float,
    code: NDArray[np.int64],
    names: Sequence[str],
    only: Collection[str] | None = None,
) -> dict[str, Any]:
    """Requests, SLO attainment, goodput, share of the bill and latencies of each group that sent anything."""
    groups = {}
    for index, name in enumerate(names):
        if only is not None and name not in only:
            continue
        members = arrived & (code == index)
        if not members.any():
            continue
        part = Latencies(times.ttft_s[members], times.tpot_s[members], times.e2e_s[members])
        groups[name] = {
            "requests": _request_counts(run, members),
            "slo_attainment": _ratio(met[members].sum(), members.sum()),
            "goodput_rps": _ratio(met[members].sum(), run.end_s),
            "cost_share": paid[members].sum() if paid.any() else math.nan,
            **_latency_statistics(part, top),
        }
    return groups


def _by_pool(run: FleetRun, step_times: Mapping[str, StepTimes], beyond: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Size, work and cost of each pool; `requests_share` and `output_tokens` are those of completed requests."""
    served = _served(run).sum(axis=1)
    completed_tokens = _completed_tokens(run)
    labels = pool_stability(run)
    pools = {}
    for name, positions in _pools(run).items():
        members = [run.replicas[i] for i in positions]
        tokens = int(completed_tokens[positions].sum())
        pools[name] = {
            "gpu": members[0].gpu,
            "replicas": _mean_replicas(members, run.end_s),
            "gpus": _mean_gpus(members, run.end_s),
            "stability": str(labels[name]),
            "estimated": any(r.estimated for r in members),
            "basis": step_times[name].basis if name in step_times else None,
            "extrapolated": list(beyond.get(name, ())),
            "requests_share": _ratio(served[positions].sum(), served.sum()),
            "output_tokens": tokens,
            "preemptions": sum(r.preemptions for r in members),
            "prefix_hit_rate": _prefix_hit_rate(members),
            "kv_usage": _kv_usage(run, positions),
            "gpu_busy": _ratio(sum(r.busy_s for r in members), sum(r.billed_s for r in members)),
            **_cost(members, run.end_s, tokens),
        }
    return pools


def _mean_replicas(members: Sequence[ReplicaTotals], duration_s: float) -> float:
    """Replicas that took requests, averaged over the run."""
    if not duration_s:
        return sum(1 for r in members if r.starts)
    return _whole(sum(r.ready_s for r in members) / duration_s)


def _notes(
    run: FleetRun, times: Latencies, slo: Mapping[str, Slo], label: Stability, top: float, tenants: int
) -> list[str]:
    """What a reader of the numbers must know, one sentence each."""
    notes = []
    if run.interrupted:
        notes.append(f"interrupted at {run.end_s:.6g} s of simulated time: partial results")
    held = run.timeline.held is not None and run.horizon_s is None and not run.interrupted
    if held and (left := int(np.count_nonzero((run.status == Status.UNFINISHED) & (run.arrival_s <= run.end_s)))):
        notes.append(f"{left:,} requests were held to the end: no replica that may serve them would ever have come up")
    if label is not Stability.STABLE:
        notes.append(_queue_note(label, pool_stability(run)))
    if label is not Stability.OVERLOADED and top < max(PERCENTILES) / 100:
        why = f"{1 - top:.2%} of the requests were cut off or got no answer"
        notes.append(f"{why}: percentiles above {top:.2%} are unknown")
    clipped = int(np.count_nonzero(generated_tokens(run) < run.trace.output_tokens))
    if clipped:
        notes.append(f"max_model_len cut {clipped:,} answers short, as vLLM does")
    notes += _idle_targets(run, times, slo)
    if tenants > MOST_TENANTS:
        notes.append(f"by_tenant lists the {MOST_TENANTS} tenants with the most requests, of {tenants:,}")
    traffic_s = _traffic_s(run)
    if traffic_s < SECONDS_PER_WEEK:
        span = f"{traffic_s / SECONDS_PER_HOUR:.3g} h" if traffic_s >= 2 * SECONDS_PER_HOUR else f"{traffic_s:.4g} s"
        notes.append(f"extrapolated to a month from {span} of traffic, less than a week")
    return notes


def _idle_targets(run: FleetRun, times: Latencies, slo: Mapping[str, Slo]) -> list[str]:
    """Targets on TPOT that ask nothing, since answers come in one piece: whoever reads them may not know it."""
    whole = ~np.isnan(times.e2e_s) & np.isnan(times.tpot_s) & (generated_tokens(run) > 1)
    asked = [slo_for(slo, name).tpot_s is not None for name in run.trace.class_names]
    count = int(np.count_nonzero(whole & np.array(asked, dtype=np.bool_)[run.trace.class_code]))
    return [f"{count:,} answers came in one piece: a target on TPOT asks nothing of them"] if count else []


def _queue_note(label: Stability, pools: Mapping[str, Stability]) -> str:
    """Which queue grew, and what follows."""
    named = [name for name, pool_label in pools.items() if pool_label is label]
    where = f"pool {', '.join(named)}" if named else "the fleet"
    if label is Stability.OVERLOADED:
        return f"more arrives than {where} can serve: p90, p95 and p99 would only measure the trace's length"
    return f"for a time more arrived than {where} could serve; the queue did not keep growing"
