"""Named random streams, all spawned from one seed.

A stream belongs to one purpose (`"router"`, `"arrivals"`), so adding a draw in one place never shifts the
numbers drawn in another: two policies replay the same trace with common random numbers.
Imports nothing of simroute.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of the stream `names` under `seed`: same arguments, same numbers, on every platform."""
    keys = [n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=tuple(keys))))
