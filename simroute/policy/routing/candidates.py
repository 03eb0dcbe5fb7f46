"""Replicas among which a policy chooses, by position, and what it must forget. Owns `Candidates` and `when_down`.

For policies that look at all replicas at once as arrays, or keep sets of replicas as the bits of a number.
May import policy.context and policy.snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simroute.policy.context import Group, PolicyContext
from simroute.policy.snapshot import Snapshot

Positions = NDArray[np.intp]

_FEW_BITS = 16


class Candidates:
    """The replicas of `pools` that take requests now, ascending; a replica's place among them is its position.

    `choices` holds their decisions by position, or the rejection alone where `replicas` is empty; `numbers` is
    `replicas` as an array, `mask` the same as bits.
    """

    __slots__ = ("_positions", "_whole_fleet", "choices", "mask", "numbers", "replicas")

    def __init__(self, context: PolicyContext, pools: Sequence[int]) -> None:
        fleet = len(context.pool_of_replica)
        self.choices = Group(context, pools).choices
        self.replicas = context.replicas_of(pools)
        self.numbers: Positions = np.array(self.replicas, dtype=np.intp)
        self.mask = sum(1 << replica for replica in self.replicas)
        self._whole_fleet = len(self.replicas) == fleet
        self._positions: Positions = np.zeros(fleet, dtype=np.intp)
        self._positions[self.numbers] = np.arange(len(self.replicas))

    def seen(self, snapshots: Sequence[Snapshot]) -> Sequence[Snapshot]:
        """Their snapshots, by position."""
        return snapshots if self._whole_fleet else [snapshots[replica] for replica in self.replicas]

    def positions(self, mask: int) -> Positions:
        """The positions of those whose bit is set in `mask`, ascending."""
        found: Positions = self._positions[bits(mask & self.mask)]
        return found


def bits(mask: int) -> Positions:
    """Which bits of `mask` are set, ascending."""
    if mask.bit_count() > _FEW_BITS:
        octets = np.frombuffer(mask.to_bytes((mask.bit_length() + 7) // 8, "little"), dtype=np.uint8)
        return np.flatnonzero(np.unpackbits(octets, bitorder="little"))
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return np.array(found, dtype=np.intp)


def when_down(context: PolicyContext, forget: Callable[[int], None]) -> None:
    """Call `forget(replica)` whenever a replica stops taking requests: its caches are cold when it comes back."""
    members = context.members
    up = [members[replica] for replica in range(len(context.pool_of_replica))]

    def changed() -> None:
        for replica, was_up in enumerate(up):
            if was_up and not members[replica]:
                forget(replica)
            up[replica] = members[replica]

    members.listen(changed)
