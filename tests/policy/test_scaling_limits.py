"""To zero and back."""

from __future__ import annotations

from policy.scaling import follow, hpa

from simroute.policy.autoscaling import PoolLoad


def test_to_zero_after_the_cooldown_and_back_when_a_request_is_held():
    """Last work at 30 s, cooldown 60 s: zero at 90 s. A request is held at 120 s: one replica."""
    scaler = hpa({"concurrency": 10}, 0, 5, cooldown_s=60)
    loads = [10, 10, 10, 0, 0, 0, 0, 0, {"held": 1}, {"held": 1}]
    assert follow(scaler, 1, loads) == [1, 1, 1, 1, 1, 1, 0, 0, 1, 1]


def test_zero_does_not_wait_for_the_window_of_the_autoscaler():
    scaler = hpa({"concurrency": 10}, 0, 5, cooldown_s=60)
    assert follow(scaler, 4, [40, 0, 0, 0, 0, 0]) == [4, 4, 4, 4, 0, 0]


def test_from_zero_it_is_one_replica_first_however_many_are_held():
    scaler = hpa({"held": 2}, 0, 50)
    assert scaler.desired(PoolLoad(0.0, 0, held=100)) == 1
    assert scaler.desired(PoolLoad(15.0, 0, 1, held=100)) == 5  # then as any pool: 4 pods in 15 s


def test_a_pool_that_starts_at_zero_stays_there_and_one_that_is_up_gets_its_cooldown():
    assert follow(hpa({"concurrency": 10}, 0, 5), 0, [0] * 3) == [0] * 3
    assert follow(hpa({"concurrency": 10}, 0, 5, cooldown_s=30), 1, [0] * 3) == [1, 1, 0]


def test_a_minimum_of_one_never_goes_to_zero():
    assert follow(hpa({"concurrency": 10}, 1, 5), 1, [0] * 99) == [1] * 99
