"""The ring by hand, and the law that consistent hashing must obey when a replica comes or goes."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest

from simroute.policy.routing.hashing import HashRing, Points, stable_hash

REPLICAS, VIRTUAL_NODES, KEYS = 12, 64, 20_000
HASHES = [stable_hash(f"key {k}") for k in range(KEYS)]


def owners(points, replicas):
    ring = points.ring(replicas)
    return [next(ring.walk(h)) for h in HASHES]


@pytest.fixture(scope="module")
def points():
    return Points(REPLICAS, VIRTUAL_NODES)


def test_a_hash_is_blake2b_of_the_text():
    """As `printf 'session 1' | b2sum -l 64` prints it."""
    assert stable_hash("session 1") == 0xC154C17A20CA4EED


def test_a_walk_starts_at_the_first_point_at_or_after_the_key_and_goes_around():
    ring = HashRing([10, 20, 30], [0, 1, 2])
    assert list(ring.walk(5)) == [0, 1, 2]
    assert list(ring.walk(20)) == [1, 2, 0]
    assert list(ring.walk(21)) == [2, 0, 1]
    assert list(ring.walk(31)) == [0, 1, 2]


def test_every_replica_has_its_points_whatever_their_number():
    for virtual_nodes in (1, 7, 8, 9):
        walk = list(Points(3, virtual_nodes).ring([0, 1, 2]).walk(0))
        assert Counter(walk) == {0: virtual_nodes, 1: virtual_nodes, 2: virtual_nodes}


def test_more_virtual_nodes_keep_the_first_ones():
    """The same replica, the same points: a ring drawn finer is the old one with points added."""
    coarse, fine = Points(2, 8), Points(2, 16)
    assert set(coarse._points.tolist()) < set(fine._points.tolist())


def test_when_a_replica_leaves_its_keys_alone_move(points):
    everyone = list(range(REPLICAS))
    before = owners(points, everyone)
    for gone in everyone:
        after = owners(points, [r for r in everyone if r != gone])
        moved = {k for k in range(KEYS) if before[k] != after[k]}
        assert moved == {k for k in range(KEYS) if before[k] == gone}


def test_a_replica_holds_about_one_in_n_keys(points):
    """Its share of the ring is Beta(v, (n-1)v), and keys fall into that independently: beta-binomial, at 4 sigma."""
    n, v = REPLICAS, VIRTUAL_NODES
    held = Counter(owners(points, range(n)))
    sigma = sqrt(KEYS * (1 / n) * (1 - 1 / n) * (n * v + KEYS) / (n * v + 1))
    assert set(held) == set(range(n))
    assert max(held.values()) <= KEYS / n + 4 * sigma
    assert min(held.values()) >= KEYS / n - 4 * sigma


def test_a_replica_that_comes_takes_keys_from_all_and_gives_none(points):
    before = owners(points, range(REPLICAS - 1))
    after = owners(points, range(REPLICAS))
    moved = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert {a for _, a in moved} == {REPLICAS - 1}
    assert {b for b, _ in moved} == set(range(REPLICAS - 1))


def test_nobody_on_the_ring_is_nobody_to_walk_to(points):
    assert list(points.ring([]).walk(1)) == []
