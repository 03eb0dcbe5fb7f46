"""Hashes that are the same everywhere, and the ring of consistent hashing. Owns `stable_hash`, `Points` and `HashRing`.

Imports nothing of simroute.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

_POINTS_PER_DIGEST = 8
"""A digest of BLAKE2b has 64 bytes: eight points of 64 bits."""


def stable_hash(key: str) -> int:
    """64 uniform bits for `key`, the same in every process and on every platform (Python's `hash` is neither)."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


class Points:
    """The points of every replica that the fleet may ever have, in ring order: `virtual_nodes` of them each.

    A replica's points depend on its number alone. So a ring of fewer replicas is this one with points taken out, and
    only the keys of a replica that left find another owner.
    """

    def __init__(self, replicas: int, virtual_nodes: int) -> None:
        digests = range(-(-virtual_nodes // _POINTS_PER_DIGEST))
        drawn = b"".join(blake2b(f"{r}/{d}".encode()).digest() for r in range(replicas) for d in digests)
        points = np.frombuffer(drawn, dtype=">u8").reshape(replicas, -1)[:, :virtual_nodes].astype(np.uint64).ravel()
        order = np.argsort(points, kind="stable")
        self._points = points[order]
        self._owners = order // virtual_nodes

    def ring(self, replicas: Sequence[int]) -> HashRing:
        """The ring of these replicas."""
        kept = np.isin(self._owners, replicas)
        return HashRing(self._points[kept].tolist(), self._owners[kept].tolist())


class HashRing:
    """Replicas on a ring of 64-bit hashes: a key belongs to the owner of the first point at or after its hash."""

    __slots__ = ("_owners", "_points")

    def __init__(self, points: Sequence[int], owners: Sequence[int]) -> None:
        self._points = points
        self._owners = owners

    def walk(self, key_hash: int) -> Iterator[int]:
        """Owners clockwise from the key, once around; a replica comes once for each of its points."""
        owners = self._owners
        start = bisect_left(self._points, key_hash)
        for place in range(start, len(owners)):
            yield owners[place]
        for place in range(start):
            yield owners[place]
