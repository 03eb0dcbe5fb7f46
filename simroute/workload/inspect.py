"""What is in a trace, as data: rates, lengths, prefix reuse, sessions, groups. Imports only the workload's trace."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from simroute.workload.columns import Floats, Ints
from simroute.workload.prefixes import covered_tokens
from simroute.workload.trace import Trace

RATE_BINS = 72
"""Stretches of time into which arrivals are counted."""
_NICE_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Rate:
    """Arrivals over time: `counts[k]` arrive from `start_s + k * bin_s` on. `cv` is that of the gaps (Poisson: 1)."""

    start_s: float
    bin_s: float
    counts: list[int]
    mean_per_s: float
    peak_per_s: float
    cv: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """A column of token counts; `counts[k]` of them are in [edges[k], edges[k + 1]), edges being powers of two."""

    total: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: int
    edges: list[int]
    counts: list[int]


@dataclass(frozen=True, slots=True)
class Reuse:
    """Prompt tokens whose prefix an earlier request held: what an unbounded cache of one replica would hit at most."""

    block_tokens: int
    prompt_tokens: int
    seen_tokens: int
    share: float


@dataclass(frozen=True, slots=True)
class Group:
    """The requests of one class, tier or tenant; `reuse` is the share of their prompt tokens seen before."""

    name: str
    requests: int
    share: float
    input_mean: float
    output_mean: float
    reuse: float


@dataclass(frozen=True, slots=True)
class TraceStats:
    """Everything `simroute trace inspect` shows. `sessions` counts sessions, `turns_mean` their requests."""

    name: str
    fingerprint: str
    requests: int
    duration_s: float
    rate: Rate
    input: Lengths
    output: Lengths
    context_max: int
    reuse: Reuse | None
    sessions: int
    turns_mean: float
    classes: list[Group]
    tiers: list[Group]
    tenants: list[Group]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)


def inspect(trace: Trace) -> TraceStats:
    """The statistics of a trace of at least one request."""
    seen = seen_tokens(trace)
    in_session = trace.session[trace.session >= 0]
    sessions = len(np.unique(in_session))
    groups = {what: _groups(trace, coded.code, coded.names, seen) for what, coded in trace.coded_columns().items()}
    return TraceStats(
        name=trace.name,
        fingerprint=trace.fingerprint(),
        requests=len(trace),
        duration_s=trace.duration_s,
        rate=arrival_rate(trace.arrival_s),
        input=length_stats(trace.input_tokens),
        output=length_stats(trace.output_tokens),
        context_max=int((trace.input_tokens + trace.output_tokens).max()),
        reuse=_reuse(trace, seen) if trace.has_prefixes else None,
        sessions=sessions,
        turns_mean=len(in_session) / sessions if sessions else 0.0,
        classes=groups["request_class"],
        tiers=groups["tier"],
        tenants=groups["tenant"],
        notes=list(trace.notes),
    )


def arrival_rate(arrival_s: Floats) -> Rate:
    """Counts over at most `RATE_BINS` stretches of a length that a clock shows.

    `arrival_s` is sorted and of shape (n,), n >= 1; the mean rate is n over the time from first to last arrival.
    """
    start = float(arrival_s[0])
    span = float(arrival_s[-1]) - start
    bin_s = float(next((s for s in _NICE_SECONDS if span < s * RATE_BINS), math.ceil(span / RATE_BINS) + 1))
    start = math.floor(start / bin_s) * bin_s
    counts = np.bincount(((arrival_s - start) // bin_s).astype(np.int64))
    gaps = np.diff(arrival_s)
    return Rate(
        start_s=start,
        bin_s=bin_s,
        counts=counts.tolist(),
        mean_per_s=len(arrival_s) / span if span else 0.0,
        peak_per_s=float(counts.max()) / bin_s,
        cv=float(gaps.std() / gaps.mean()) if span else 0.0,
    )


def length_stats(tokens: Ints) -> Lengths:
    """Summary of token counts >= 1 of shape (n,), n >= 1."""
    p50, p90, p99 = np.percentile(tokens, (50, 90, 99)).tolist()
    # frexp gives x = m * 2^e with m in [0.5, 1): the bin of [2^(e-1), 2^e).
    exponent = np.frexp(tokens.astype(np.float64))[1].astype(np.int64) - 1
    lowest = int(exponent.min())
    counts = np.bincount(exponent - lowest)
    return Lengths(
        total=int(tokens.sum()),
        mean=float(tokens.mean()),
        p50=p50,
        p90=p90,
        p99=p99,
        max=int(tokens.max()),
        edges=[2 ** (lowest + k) for k in range(len(counts) + 1)],
        counts=counts.tolist(),
    )


def seen_tokens(trace: Trace) -> Ints:
    """Prompt tokens of each request, shape (n,), that the latest earlier request with the same ids held too."""
    seen = np.zeros(len(trace), dtype=np.int64)
    if not trace.has_prefixes:
        return seen
    block = trace.prefix_block_tokens
    prefixes = trace.prefixes
    lengths = prefixes.lengths
    owner = np.repeat(np.arange(len(trace)), lengths)
    covered = covered_tokens(prefixes, block, trace.input_tokens, trace.output_tokens)
    place = np.arange(len(owner)) - trace.prefix_offsets[owner]
    end = np.minimum((place + 1) * block, covered[owner])
    # Occurrences of one id next to each other, in order of arrival: each sees how far the one before it reached.
    order = np.argsort(prefixes.ids, kind="stable")
    again = np.flatnonzero(np.diff(prefixes.ids[order]) == 0)
    known = np.zeros(len(owner), dtype=np.int64)
    known[order[again + 1]] = end[order[again]]
    np.maximum.at(seen, owner, known)
    return np.minimum(seen, trace.input_tokens)


def _reuse(trace: Trace, seen: Ints) -> Reuse:
    prompt, known = int(trace.input_tokens.sum()), int(seen.sum())
    return Reuse(trace.prefix_block_tokens, prompt, known, known / prompt)


def _groups(trace: Trace, code: Ints, names: tuple[str, ...], seen: Ints) -> list[Group]:
    """One group a name in use, the largest first."""
    count, inputs, outputs, known = (
        np.bincount(code, weights=weights, minlength=len(names)).tolist()
        for weights in (None, trace.input_tokens, trace.output_tokens, seen)
    )
    groups = [
        Group(name, count[k], count[k] / len(trace), inputs[k] / count[k], outputs[k] / count[k], known[k] / inputs[k])
        for k, name in enumerate(names)
        if count[k]
    ]
    return sorted(groups, key=lambda group: (-group.requests, group.name))
