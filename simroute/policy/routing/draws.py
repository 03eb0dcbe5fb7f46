"""Random numbers that belong to a request, not to the order in which requests are asked about. Imports only numpy."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

_KEY_BYTES = 16
_SPAN = 2.0**-53
"""The distance between two floats just below 1: 53 bits of a hash make a uniform number."""


class RequestDraws:
    """A uniform number in [0, 1) for each request: the same under every policy, on every attempt, in any order.

    `rng` gives the key: policies that are handed streams of one seed and draw here first share the numbers. Numbers
    of different purposes have nothing to do with each other.
    """

    def __init__(self, rng: np.random.Generator, purpose: str) -> None:
        self._keyed = blake2b(digest_size=8, key=rng.bytes(_KEY_BYTES), person=purpose.encode()[:16])

    def __call__(self, index: int, step: int = 0) -> float:
        """The number of request `index`; `step` tells apart several of one purpose."""
        keyed = self._keyed.copy()
        keyed.update(index.to_bytes(8, "little") + step.to_bytes(2, "little"))
        return (int.from_bytes(keyed.digest(), "little") >> 11) * _SPAN
