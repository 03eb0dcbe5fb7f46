"""Synthetic traces from a specification: `spec` (what may be said), `draw` (random numbers), `sessions` (one stream).

May import rng, units and the workload's trace.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simroute.errors import TraceError
from simroute.workload.columns import Coded, Ints
from simroute.workload.prefixes import Ragged, offsets_of
from simroute.workload.synth.sessions import Turns, shared_ids, turns_of
from simroute.workload.synth.spec import MixSpec, Stream
from simroute.workload.trace import Trace

__all__ = ["MixSpec", "Stream", "synthesize"]

ARRIVAL_DIGITS = 3
"""Arrivals are rounded to milliseconds: finer is noise, and it would double the file."""


def synthesize(spec: MixSpec, seed: int | None = None) -> Trace:
    """The trace that `spec` describes; `seed` takes the place of the spec's own.

    Every stream draws its own random numbers for each purpose, so changing one stream leaves the others as they were.
    Raises TraceError when nothing arrives.
    """
    parts = [turns_of(stream, spec, spec.seed if seed is None else seed) for stream in spec.streams]
    sizes = np.array([len(part.turn) for part in parts])
    if not sizes.sum():
        raise TraceError(f"{spec.name}: nothing arrives in {spec.duration_s:g} s: raise the rates or the duration")
    arrival_s = np.round(np.concatenate([part.arrival_s for part in parts]), ARRIVAL_DIGITS)
    order = np.argsort(arrival_s, kind="stable")
    owner = np.repeat(np.arange(len(parts)), sizes)[order]
    return Trace.build(
        arrival_s=arrival_s[order],
        input_tokens=np.concatenate([part.input_tokens for part in parts])[order],
        output_tokens=np.concatenate([part.output_tokens for part in parts])[order],
        request_class=Coded(owner, tuple(stream.request_class for stream in spec.streams)),
        tenant=Coded(owner, tuple(stream.tenant for stream in spec.streams)),
        tier=Coded(owner, tuple(stream.tier for stream in spec.streams)),
        priority=np.array([stream.priority for stream in spec.streams])[owner],
        session=_session_numbers(spec.streams, parts)[order],
        prefixes=_prefixes(parts, spec.prefix_block_tokens).take(order),
        prefix_block_tokens=spec.prefix_block_tokens,
        name=spec.name,
    )


def _session_numbers(streams: Sequence[Stream], parts: Sequence[Turns]) -> Ints:
    """Numbers of sessions, distinct over all streams; -1 in streams whose requests stand alone."""
    columns, taken = [], 0
    for stream, part in zip(streams, parts, strict=True):
        columns.append(part.session + taken if stream.sessions else np.full(len(part.turn), -1, dtype=np.int64))
        taken += int(part.session.max(initial=-1)) + 1 if stream.sessions else 0
    return np.concatenate(columns)


def _prefixes(parts: Sequence[Turns], block_tokens: int) -> Ragged:
    rows, free = [], 0
    for part in parts:
        ragged, free = shared_ids(part, block_tokens, free)
        rows.append(ragged)
    lengths = np.concatenate([row.lengths for row in rows])
    return Ragged(offsets_of(lengths), np.concatenate([row.ids for row in rows]))
