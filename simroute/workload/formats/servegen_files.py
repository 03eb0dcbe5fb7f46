"""The files of ServeGen data (see servegen.py): finding them in a folder or archive, windows and histograms checked.

May import errors, the formats' base and the workload's columns.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simroute.errors import TraceError
from simroute.workload.columns import Floats, Ints
from simroute.workload.formats.base import NAMED_BAD_ROWS, BadRows, Bools, Field

DEFAULT_WIDTH_S = 600.0
"""A window's length where a file has but one: ServeGen's own."""
SNIFFED_MEMBERS = 10
"""How far an archive is read to recognise it."""

_FILE = re.compile(r"(?:(?P<folder>.*)/)?chunk-(?P<client>\d{1,9})-(?P<kind>trace\.csv|dataset\.json)")
_CELLS = 6
_START, _RATE = Field("start_s", whole=True), Field("rate")
# Shapes below would draw gaps that float64 cannot hold.
_SHAPE = Field("arg1", low=0.01)
_PATTERNS = ("Gamma", "Weibull")


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of all clients, those of a client together and in order of time. Columns of shape (n,).

    `weibull` tells which distribution the gaps of the `shape` have; both mean nothing where the rate is 0.
    """

    client: Ints
    start_s: Floats
    rate_per_s: Floats
    shape: Floats
    weibull: Bools
    width_s: float

    def take(self, keep: Bools) -> Windows:
        """The windows under a mask."""
        columns = {name: getattr(self, name)[keep] for name in _COLUMNS}
        return replace(self, **columns)

    def rows(self) -> Iterator[tuple[int, float, float, float, bool]]:
        """(client, start_s, rate_per_s, shape, weibull) of each."""
        return zip(*(getattr(self, name).tolist() for name in _COLUMNS), strict=True)

    def rate_of_client(self) -> dict[int, float]:
        """Mean requests a second of each client, over all windows of the file."""
        clients, code = np.unique(self.client, return_inverse=True)
        span = max(len(np.unique(self.start_s)), 1)
        means = np.bincount(code.reshape(-1), weights=self.rate_per_s, minlength=len(clients)) / span
        return dict(zip(clients.tolist(), means.tolist(), strict=True))


_COLUMNS = ("client", "start_s", "rate_per_s", "shape", "weibull")


class Histogram(NamedTuple):
    """Token counts (rising, at least 1) and the running sums of their weights, both of shape (k,), k >= 1."""

    tokens: Ints
    bounds: Floats


Lengths = tuple[Histogram, Histogram]
"""Of prompts and of answers."""


def is_set(path: Path) -> bool:
    """Whether a folder or an archive holds a client's file among the first."""
    try:
        if path.is_dir():
            return any(_FILE.fullmatch(name) for name, _ in _in_folder(path))
        with tarfile.open(path) as archive:
            return any(_FILE.fullmatch(member.name) for member in islice(archive, SNIFFED_MEMBERS))
    except _damages():
        return False


def client_files(path: Path) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """The contents of the trace.csv and of the dataset.json files, by client.

    Raises TraceError for a damaged archive, and unless there is exactly one set of clients in it.
    """
    found: dict[str, dict[int, bytes]] = {"trace.csv": {}, "dataset.json": {}}
    folders = set()
    for name, content in _contents(path):
        match = _FILE.fullmatch(name)
        if match:
            folders.add(match["folder"] or ".")
            found[match["kind"]][int(match["client"])] = content
    if not found["trace.csv"]:
        raise TraceError(f"{path}: no chunk-N-trace.csv in it: give a set of ServeGen's clients")
    if len(folders) > 1:
        sets = ", ".join(sorted(folders)[:NAMED_BAD_ROWS])
        raise TraceError(f"{path}: holds {len(folders)} sets of clients ({sets}): unpack it and give the folder of one")
    return found["trace.csv"], found["dataset.json"]


def read_windows(tables: Mapping[int, bytes], bad: BadRows) -> Windows:
    """Every good row of the clients' tables; the others are counted in `bad`.

    Windows are as long as the least time between two starts: all clients have the same.
    """
    parts = [(client, _rows(f"chunk-{client}-trace.csv", tables[client], bad)) for client in sorted(tables)]
    start_s, rate, shape = (np.concatenate([numbers[k] for _, (numbers, _) in parts]) for k in range(3))
    gaps = np.diff(np.unique(start_s))
    return Windows(
        client=np.repeat([client for client, _ in parts], [len(weibull) for _, (_, weibull) in parts]).astype(np.int64),
        start_s=start_s,
        rate_per_s=rate,
        shape=shape,
        weibull=np.concatenate([weibull for _, (_, weibull) in parts]),
        width_s=float(gaps.min()) if len(gaps) else DEFAULT_WIDTH_S,
    )


class TokenLengths:
    """Token lengths by client and time, parsed when asked for. `rates`: mean requests a second of each client.

    A client without any takes those of the one with the nearest rate: large clients resemble each other more than
    small ones.
    """

    def __init__(self, path: Path, datasets: Mapping[int, bytes], rates: Mapping[int, float]) -> None:
        self._path = path
        self._rates = rates
        self._unreadable: dict[str, str] = {}
        self._lengths: dict[tuple[int, float], Lengths | None] = {}
        self._peer: dict[int, int] = {}
        self._texts = {client: self._texts_of(client, datasets[client]) for client in sorted(datasets)}

    def of(self, client: int, at_s: float) -> Lengths:
        """What holds for the client at this time: the latest until then, else the first after.

        Raises TraceError when no client has any.
        """
        own = self._own(client, at_s) if client not in self._peer else None
        return own or self._peers(client, at_s)

    def notes(self) -> tuple[str, ...]:
        """What was unreadable and who took whose lengths, as far as they were asked for."""
        notes = []
        if self._unreadable:
            why = [f"{where} ({what})" for where, what in sorted(self._unreadable.items())]
            notes.append(f"{self._path}: skipped {len(why):,} unreadable histograms: {_some(why)}")
        if self._peer:
            who = [f"client-{client} those of client-{peer}" for client, peer in sorted(self._peer.items())]
            notes.append(
                f"{self._path}: {len(who):,} clients have no histograms and take those of the client with the nearest "
                f"rate: {_some(who)}"
            )
        return tuple(notes)

    def _texts_of(self, client: int, content: bytes) -> dict[float, tuple[object, object]]:
        """(input, output) as the file writes them, by start."""
        where = f"chunk-{client}-dataset.json"
        try:
            return {
                float(start): (fields["input_tokens"], fields["output_tokens"])
                for start, fields in json.loads(content).items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._unreadable[where] = f"{type(error).__name__}: {error}"
            return {}

    def _own(self, client: int, at_s: float) -> Lengths | None:
        starts = sorted(self._texts.get(client, ()))
        past, later = [s for s in reversed(starts) if s <= at_s], [s for s in starts if s > at_s]
        return next((found for s in (*past, *later) if (found := self._parsed(client, s))), None)

    def _peers(self, client: int, at_s: float) -> Lengths:
        rate = self._rates.get(client, 0.0)
        nearest = sorted(self._texts, key=lambda peer: (abs(self._rates.get(peer, 0.0) - rate), peer))
        for peer in [self._peer[client]] if client in self._peer else nearest:
            if found := self._own(peer, at_s):
                self._peer[client] = peer
                return found
        raise TraceError(f"{self._path}: no client has token lengths: chunk-N-dataset.json is missing or empty")

    def _parsed(self, client: int, start_s: float) -> Lengths | None:
        key = (client, start_s)
        if key not in self._lengths:
            try:
                prompt, answer = map(_histogram, self._texts[client][start_s])
                self._lengths[key] = (prompt, answer) if prompt and answer else None
            except (ValueError, TypeError) as error:
                self._unreadable[f"chunk-{client}-dataset.json at {start_s:g}"] = f"{error!s:.60}"
                self._lengths[key] = None
        return self._lengths[key]


def _histogram(text: object) -> Histogram | None:
    """`{45: 0.25, 46: 0.75}` as a histogram, None for an empty one; bins below 1 token are left out.

    Raises ValueError for what is no such text.
    """
    if not isinstance(text, str) or not (text.startswith("{") and text.endswith("}")):
        raise ValueError("not a {tokens: weight} text")
    if not text.strip("{} "):
        return None
    cells = text[1:-1].replace(":", ",").split(",")
    tokens, weights = np.array(cells, dtype=np.float64).reshape(-1, 2).T
    if not (np.isfinite(tokens).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("tokens and weights must be finite numbers, no weight below 0")
    keep = (tokens >= 1) & (weights > 0)
    if not keep.any():
        return None
    return Histogram(np.rint(tokens[keep]).astype(np.int64), np.cumsum(weights[keep]))


def _rows(file: str, content: bytes, bad: BadRows) -> tuple[tuple[Floats, Floats, Floats], Bools]:
    """((start_s, rate, shape), weibull) of the good rows of one table."""
    lines = content.decode("utf-8-sig").splitlines()
    numbered = [(line, text.split(",")) for line, text in enumerate(lines, start=1) if text.strip()]
    for line, cells in numbered:
        if len(cells) != _CELLS:
            bad.add(line, f"{file}: {len(cells)} cells, not {_CELLS}")
    rows = [(line, cells) for line, cells in numbered if len(cells) == _CELLS]
    columns = [[cells[k].strip() for _, cells in rows] for k in (0, 1, 3, 4)]
    (start_s, no_start), (rate, no_rate), (shape, no_shape) = (
        field.column(columns[k]) for field, k in ((_START, 0), (_RATE, 1), (_SHAPE, 3))
    )
    active = ~no_rate & (rate > 0)
    pattern = np.array(columns[2], dtype=np.str_)
    no_pattern = active & ~np.isin(pattern, _PATTERNS)
    again = np.ones(len(rows), dtype=np.bool_)
    again[np.unique(start_s, return_index=True)[1]] = False
    refused = no_start | no_rate | no_pattern | (active & no_shape) | again
    for k in np.flatnonzero(refused).tolist():
        if no_start[k]:
            why = _START.complaint(columns[0][k], float(start_s[k]))
        elif no_rate[k]:
            why = _RATE.complaint(columns[1][k], float(rate[k]))
        elif no_pattern[k]:
            why = f"pattern: {columns[2][k]!r:.40} is neither {' nor '.join(_PATTERNS)}"
        elif again[k]:
            why = f"start_s: {start_s[k]:g} stands there before"
        else:
            why = _SHAPE.complaint(columns[3][k], float(shape[k]))
        bad.add(rows[k][0], f"{file}: {why}")
    keep = ~refused
    return (start_s[keep], rate[keep], shape[keep]), (pattern == "Weibull")[keep]


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that may be a client's."""
    if path.is_dir():
        for name, file in _in_folder(path):
            yield name, file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                data = archive.extractfile(member) if member.isfile() and _FILE.fullmatch(member.name) else None
                if data is not None:
                    yield member.name, data.read()
    except _damages() as error:
        raise TraceError(f"{path}: cannot be read as an archive: {error}") from error


def _in_folder(path: Path) -> Iterator[tuple[str, Path]]:
    """The files of clients up to two folders down, as in an archive, by name."""
    for pattern in ("chunk-*", "*/chunk-*", "*/*/chunk-*"):
        for file in sorted(path.glob(pattern)):
            yield file.relative_to(path).as_posix(), file


def _damages() -> tuple[type[Exception], ...]:
    """What reading a damaged archive raises; Python may have been built without liblzma."""
    usual = (OSError, EOFError, zlib.error, tarfile.TarError)
    try:
        from lzma import LZMAError
    except ImportError:
        return usual
    return (*usual, LZMAError)


def _some(items: Sequence[str]) -> str:
    return ", ".join([*items[:NAMED_BAD_ROWS], *(["..."] if len(items) > NAMED_BAD_ROWS else [])])
