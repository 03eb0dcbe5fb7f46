"""From the rows of a trace to requests in flight. Owns `Arrivals`; may import engine, workload and errors.

The columns stay arrays; rows become Python objects a block at a time, so that a million requests cost no more memory
than a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, repeat

import numpy as np

from simroute.engine.sequence import EngineRequest
from simroute.errors import UsageError
from simroute.workload.columns import Ints
from simroute.workload.trace import Trace

ROWS_AT_ONCE = 4096


class Arrivals:
    """Iterates over a trace in order of arrival, giving engine requests with their prefix content.

    With `only_shared` the ids that occur once in the trace are left out: nobody can hit them, so they need not be
    tracked. It changes no decision.
    """

    def __init__(self, trace: Trace, *, only_shared: bool) -> None:
        self.trace = trace
        lengths = np.diff(trace.prefix_offsets)
        self.kept_ids = self._shared_lengths(lengths) if only_shared else lengths
        self.content_tokens = np.minimum(self._covered_tokens(lengths), self.kept_ids * trace.prefix_block_tokens)

    def _covered_tokens(self, lengths: Ints) -> Ints:
        """Tokens of each request that its ids describe: its last id may be cut short by the end of the prompt."""
        trace = self.trace
        covered = lengths * trace.prefix_block_tokens
        prompt = trace.input_tokens
        ends_in_prompt = (covered - trace.prefix_block_tokens < prompt) & (prompt <= covered)
        described: Ints = np.where(ends_in_prompt, prompt, np.minimum(covered, prompt + trace.output_tokens))
        return described

    def _shared_lengths(self, lengths: Ints) -> Ints:
        """How many leading ids of each request occur in another row of the trace too."""
        trace = self.trace
        if not len(trace.prefix_ids):
            return lengths
        _, inverse, counts = np.unique(trace.prefix_ids, return_inverse=True, return_counts=True)
        once = np.flatnonzero(counts[inverse] == 1)
        starts, ends = trace.prefix_offsets[:-1], trace.prefix_offsets[1:]
        first_once: Ints = np.append(once, len(trace.prefix_ids))[np.searchsorted(once, starts)]
        return np.minimum(first_once, ends) - starts

    def __iter__(self) -> Iterator[EngineRequest]:
        return chain.from_iterable(self._blocks())

    def _blocks(self) -> Iterator[Iterator[EngineRequest]]:
        """The requests of so many rows at once, each made when it is asked for."""
        trace = self.trace
        starts, ends = trace.prefix_offsets[:-1], trace.prefix_offsets[:-1] + self.kept_ids
        names = [
            (np.array(names, dtype=object), codes)
            for names, codes in (
                (trace.class_names, trace.class_code),
                (trace.tier_names, trace.tier_code),
                (trace.tenant_names, trace.tenant_code),
            )
        ]
        nothing: Iterable[Sequence[int]] = repeat(())
        for start in range(0, len(trace), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            prefixes = nothing
            if self.kept_ids[rows].any():
                spans = zip(starts[rows].tolist(), ends[rows].tolist(), strict=True)
                prefixes = (trace.prefix_ids[a:b].tolist() if b > a else () for a, b in spans)
            yield map(
                EngineRequest,
                count(start),
                trace.arrival_s[rows].tolist(),
                trace.input_tokens[rows].tolist(),
                trace.output_tokens[rows].tolist(),
                *(name[code[rows]].tolist() for name, code in names),
                trace.priority[rows].tolist(),
                trace.session[rows].tolist(),
                prefixes,
            )

    def describe(self, request: EngineRequest, block_size: int) -> None:
        """Restate a request's content ids for KV blocks of `block_size` tokens (one size divides the other)."""
        if not request.prefix_ids:
            return
        id_tokens = self.trace.prefix_block_tokens
        if id_tokens < block_size:
            ids_per_block = block_size // id_tokens
            request.prefix_ids = request.prefix_ids[ids_per_block - 1 :: ids_per_block]
            id_tokens = block_size
        request.blocks_per_id = id_tokens // block_size
        request.content_blocks = int(self.content_tokens[request.index]) // block_size


def check_block_size(trace: Trace, block_size: int) -> None:
    """Raise UsageError unless KV blocks and the trace's prefix blocks fit into each other."""
    tokens = trace.prefix_block_tokens
    if tokens and tokens % block_size and block_size % tokens:
        raise UsageError(
            f"block_size {block_size} does not fit the trace's prefix blocks of {tokens} tokens: "
            "one must be a multiple of the other"
        )
