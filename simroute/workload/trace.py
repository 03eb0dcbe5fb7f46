"""The columnar trace: what arrives, as a struct of numpy arrays. Imports only errors and its own columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simroute.errors import TraceError, UsageError
from simroute.workload.columns import Coded, Floats, Ints, Names, encode, number_column, out_of_order, whole_column
from simroute.workload.prefixes import Ragged, check, empty, from_rows, stretched


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """n requests in order of arrival.

    Columns (all of length n): `arrival_s` (float64 seconds from the start, non-decreasing, >= 0),
    `input_tokens` (int64, >= 1), `output_tokens` (int64, >= 1), `class_code` / `tenant_code` / `tier_code`
    (int64 indices into `class_names` / `tenant_names` / `tier_names`), `priority` (int64, lower is sooner, as in vLLM),
    `session` (int64, -1 for none).

    Prefixes: request i's chained content ids are `prefix_ids[prefix_offsets[i]:prefix_offsets[i + 1]]`, each for
    `prefix_block_tokens` consecutive tokens of its stream (the prompt, then the answer; the last may be partial).
    Equal ids mean equal tokens from the start of the stream up to the end of that block (where one stream ends inside
    it, up to that end). Tokens beyond the ids are unique to the request. `prefix_block_tokens` is 0 when the trace
    knows no prefixes.
    `notes` says, a line each, what a reader had to mend (rows skipped, arrivals sorted).
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    class_code: Ints
    tenant_code: Ints
    tier_code: Ints
    priority: Ints
    session: Ints
    class_names: tuple[str, ...]
    tenant_names: tuple[str, ...]
    tier_names: tuple[str, ...]
    prefix_offsets: Ints
    prefix_ids: Ints
    prefix_block_tokens: int
    name: str = "trace"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)

    @classmethod
    def build(
        cls,
        *,
        arrival_s: ArrayLike,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        request_class: Names | None = None,
        tenant: Names | None = None,
        tier: Names | None = None,
        priority: ArrayLike | None = None,
        session: ArrayLike | None = None,
        prefixes: Sequence[Sequence[int]] | Ragged | None = None,
        prefix_block_tokens: int = 0,
        name: str = "trace",
        notes: Sequence[str] = (),
    ) -> Trace:
        """A checked trace, sorted by arrival (stably, with a note when that changed the order).

        Columns have shape (n,); lengths, priority and session may be one number for all, names one string for all.
        `prefixes` holds one sequence of ids a request, or all of them as `Ragged`.
        Raises TraceError for an empty trace, NaN, negative arrivals, lengths below 1 and columns that do not fit.
        """
        arrival = number_column("arrival_s", arrival_s, low=0.0, whole=False)
        rows = len(arrival)
        if rows == 0:
            raise TraceError(f"{name}: the trace has no requests")
        classes, tenants, tiers = (
            encode(what, value, rows)
            for what, value in (("request_class", request_class), ("tenant", tenant), ("tier", tier))
        )
        inputs = number_column("input_tokens", input_tokens, rows, low=1, whole=True).astype(np.int64)
        outputs = number_column("output_tokens", output_tokens, rows, low=1, whole=True).astype(np.int64)
        ragged = _as_ragged(prefixes, rows)
        check(ragged, prefix_block_tokens, inputs + outputs)
        trace = cls(
            arrival_s=arrival,
            input_tokens=inputs,
            output_tokens=outputs,
            class_code=classes.code,
            tenant_code=tenants.code,
            tier_code=tiers.code,
            priority=whole_column("priority", priority, rows, 0),
            session=whole_column("session", session, rows, -1),
            class_names=classes.names,
            tenant_names=tenants.names,
            tier_names=tiers.names,
            prefix_offsets=ragged.offsets,
            prefix_ids=ragged.ids,
            prefix_block_tokens=prefix_block_tokens if len(ragged.ids) else 0,
            name=name,
            notes=tuple(notes),
        )
        return trace._sorted()

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last arrival; 0 when there are fewer than two."""
        return float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) else 0.0

    @property
    def has_prefixes(self) -> bool:
        """Whether any request has prefix ids."""
        return len(self.prefix_ids) > 0

    @property
    def prefixes(self) -> Ragged:
        """The prefix ids as ragged rows."""
        return Ragged(self.prefix_offsets, self.prefix_ids)

    def select(self, index_or_mask: ArrayLike) -> Trace:
        """The requests at these indices (which must not go back in time) or under this mask of shape (n,).

        Raises UsageError when the indices are out of range or would put arrivals out of order.
        """
        chosen = np.asarray(index_or_mask)
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        if chosen.dtype == np.bool_ and len(chosen) != len(self):
            raise UsageError(f"select: the mask has {len(chosen)} values for {len(self)} requests")
        if len(index) and not (-len(self) <= index.min() and index.max() < len(self)):
            raise UsageError(f"select: indices must be within 0..{len(self) - 1}, got {index.min()}..{index.max()}")
        if out_of_order(self.arrival_s[index]):
            raise UsageError("select: indices must be in order of arrival: sort them")
        return self._rows(index)

    def head(self, count: int) -> Trace:
        """The first `count` requests. Raises UsageError when `count` is below 1."""
        if count < 1:
            raise UsageError(f"head: must be at least 1 request, got {count}")
        return self._rows(np.arange(min(count, len(self))))

    def window(self, start_s: float, stop_s: float) -> Trace:
        """The requests that arrive in [start_s, stop_s), their clock started at `start_s`.

        Raises UsageError when the window is not a window, TraceError when nothing arrives in it.
        """
        check_window(start_s, stop_s)
        first, last = np.searchsorted(self.arrival_s, [start_s, stop_s], side="left")
        if first == last:
            raise TraceError(
                f"{self.name}: nothing arrives in {start_s:g}..{stop_s:g} s "
                f"(arrivals span {self.arrival_s[0]:g}..{self.arrival_s[-1]:g} s)"
            )
        cut = self._rows(np.arange(first, last))
        return replace(cut, arrival_s=cut.arrival_s - start_s)

    def tagged(
        self,
        request_class: Names | None = None,
        tenant: Names | None = None,
        tier: Names | None = None,
        priority: ArrayLike | None = None,
    ) -> Trace:
        """The same requests with these columns replaced (one value for all, or one a request); None keeps a column."""
        columns: dict[str, object] = {}
        for field, value in (("class", request_class), ("tenant", tenant), ("tier", tier)):
            if value is not None:
                columns[f"{field}_code"], columns[f"{field}_names"] = encode(field, value, len(self))
        if priority is not None:
            columns["priority"] = whole_column("priority", priority, len(self), 0)
        return replace(self, **columns)  # type: ignore[arg-type]

    def scaled(self, rate: float = 1.0, input: float = 1.0, output: float = 1.0) -> Trace:
        """Arrivals `rate` times as fast, prompts `input` and answers `output` times as long (rounded, at least 1).

        Prefixes grow or shrink with what they describe. Where prompts and answers are scaled differently, what
        later prompts share with answers is dropped, with a note: it is no longer as long in both.
        Raises UsageError unless every factor is a positive number.
        """
        for what, factor in (("rate", rate), ("input", input), ("output", output)):
            if not 0 < factor < np.inf:
                raise UsageError(f"scale {what}: must be a number above 0, got {factor:g}")
        trace = replace(
            self,
            arrival_s=self.arrival_s / rate,
            input_tokens=_scaled_tokens(self.input_tokens, input),
            output_tokens=_scaled_tokens(self.output_tokens, output),
        )
        return (
            trace
            if (input, output) == (1.0, 1.0) or not self.has_prefixes
            else self._with_prefixes_of(trace, input, alike=input == output)
        )

    def _with_prefixes_of(self, scaled: Trace, factor: float, *, alike: bool) -> Trace:
        """`scaled`, its prompts `factor` times as long as here (and its answers, if `alike`), with the prefixes."""
        block, lengths = self.prefix_block_tokens, self.prefixes.lengths
        answered = lengths > -(-self.input_tokens // block)
        most = scaled.input_tokens + np.where(answered & alike, scaled.output_tokens, 0)
        described = np.where(answered & (not alike), self.input_tokens // block, lengths)
        ids = stretched(self.prefixes, factor, described, -(-most // block))
        dropped = f"{self.name}: prompts share nothing with answers any more, for the two are scaled differently"
        notes = (*self.notes, *([dropped] if (described < lengths).any() else []))
        return replace(scaled, prefix_offsets=ids.offsets, prefix_ids=ids.ids, notes=notes)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of every column and the names in use; the trace's own name and notes do not count."""
        digest = hashlib.sha256(f"{len(self)} {self.prefix_block_tokens}".encode())
        numbers = (self.arrival_s, self.input_tokens, self.output_tokens, self.priority, self.session, *self.prefixes)
        for column in numbers:
            digest.update(_little_endian(column))
        for coded in self.coded_columns().values():
            code, names = coded.canonical()
            digest.update(_little_endian(code) + "\0".join(names).encode() + b"\1")
        return digest.hexdigest()

    def coded_columns(self) -> dict[str, Coded]:
        """The columns of names: `request_class`, `tenant` and `tier`."""
        return {
            "request_class": Coded(self.class_code, self.class_names),
            "tenant": Coded(self.tenant_code, self.tenant_names),
            "tier": Coded(self.tier_code, self.tier_names),
        }

    def _rows(self, index: NDArray[np.integer]) -> Trace:
        columns = ("arrival_s", "input_tokens", "output_tokens", "class_code", "tenant_code", "tier_code")
        taken = {column: getattr(self, column)[index] for column in (*columns, "priority", "session")}
        prefixes = self.prefixes.take(index.astype(np.int64))
        return replace(self, prefix_offsets=prefixes.offsets, prefix_ids=prefixes.ids, **taken)

    def _sorted(self) -> Trace:
        moved = out_of_order(self.arrival_s)
        if not moved:
            return self
        trace = self._rows(np.argsort(self.arrival_s, kind="stable"))
        return replace(trace, notes=(*self.notes, f"{self.name}: {moved} arrivals out of order: sorted"))


def check_window(start_s: float, stop_s: float) -> None:
    """Raise UsageError unless [start_s, stop_s) is a stretch of time from 0 on."""
    if not 0 <= start_s < stop_s:
        raise UsageError(f"window: must be 0 <= start < stop, got {start_s:g}:{stop_s:g}")


def _as_ragged(prefixes: Sequence[Sequence[int]] | Ragged | None, rows: int) -> Ragged:
    if prefixes is None:
        return empty(rows)
    return prefixes if isinstance(prefixes, Ragged) else from_rows(prefixes)


def _scaled_tokens(tokens: Ints, factor: float) -> Ints:
    if factor == 1.0:
        return tokens
    scaled: Ints = np.maximum(np.rint(tokens * factor), 1).astype(np.int64)
    return scaled


def _little_endian(column: Floats | Ints) -> bytes:
    dtype = "<f8" if column.dtype.kind == "f" else "<i8"
    return column.astype(dtype, copy=False).tobytes()
