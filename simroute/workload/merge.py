"""Several traces as one: arrivals interleaved, names united, ids kept apart. Imports only its own room and errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simroute.errors import UsageError
from simroute.workload.columns import Coded, Ints
from simroute.workload.prefixes import Ragged, covered_tokens, densified, offsets_of, split
from simroute.workload.trace import Trace


def merge(traces: Sequence[Trace], name: str = "merged") -> Trace:
    """All requests of `traces` by arrival; at equal arrivals those of the first trace come first.

    Prefix ids and sessions are renamed so that those of different traces never meet. Traces with different
    `prefix_block_tokens` are brought to the greatest common divisor. Notes are kept.
    Raises UsageError when `traces` is empty.
    """
    if not traces:
        raise UsageError("merge: give at least one trace")
    block_tokens = math.gcd(*(trace.prefix_block_tokens for trace in traces))
    arrival_s = np.concatenate([trace.arrival_s for trace in traces])
    order = np.argsort(arrival_s, kind="stable")
    return Trace.build(
        arrival_s=arrival_s[order],
        input_tokens=np.concatenate([trace.input_tokens for trace in traces])[order],
        output_tokens=np.concatenate([trace.output_tokens for trace in traces])[order],
        request_class=_united([Coded(trace.class_code, trace.class_names) for trace in traces], order),
        tenant=_united([Coded(trace.tenant_code, trace.tenant_names) for trace in traces], order),
        tier=_united([Coded(trace.tier_code, trace.tier_names) for trace in traces], order),
        priority=np.concatenate([trace.priority for trace in traces])[order],
        session=_sessions(traces)[order],
        prefixes=_prefixes(traces, block_tokens).take(order),
        prefix_block_tokens=block_tokens,
        name=name,
        notes=[note for trace in traces for note in trace.notes],
    )


def _united(columns: Sequence[Coded], order: Ints) -> Coded:
    names: dict[str, int] = {}
    codes = []
    for column in columns:
        lookup = np.array([names.setdefault(name, len(names)) for name in column.names], dtype=np.int64)
        codes.append(lookup[column.code])
    return Coded(np.concatenate(codes)[order], tuple(names))


def _sessions(traces: Sequence[Trace]) -> Ints:
    taken = 0
    columns = []
    for trace in traces:
        column = np.full(len(trace), -1, dtype=np.int64)
        inside = trace.session >= 0
        renamed, count = densified(trace.session[inside])
        column[inside] = renamed + taken
        taken += count
        columns.append(column)
    return np.concatenate(columns)


def _prefixes(traces: Sequence[Trace], block_tokens: int) -> Ragged:
    taken = 0
    rows = []
    for trace in traces:
        ids, count = densified(trace.prefix_ids)
        ragged = Ragged(trace.prefix_offsets, ids)
        parts = trace.prefix_block_tokens // block_tokens if trace.has_prefixes else 1
        if parts > 1:
            covered = covered_tokens(ragged, trace.prefix_block_tokens, trace.input_tokens, trace.output_tokens)
            ragged = split(ragged, trace.prefix_block_tokens, parts, covered)
        rows.append(Ragged(ragged.offsets, ragged.ids + taken))
        taken += count * parts
    lengths = np.concatenate([row.lengths for row in rows])
    return Ragged(offsets_of(lengths), np.concatenate([row.ids for row in rows]))
