"""What Kubernetes' arithmetic makes of metrics, on paper: ratios, tolerance, replicas that start, unknown metrics."""

from __future__ import annotations

from policy.scaling import AT_ONCE, hpa

from simroute.policy.autoscaling import PoolLoad


def once(targets, ready, starting=0, **load):
    """What the metrics ask for, with no window or policy in the way."""
    free = {"policies": [{"type": "Percent", "value": 10_000, "period_s": 1}], **AT_ONCE}
    return hpa(targets, scale_up=free, scale_down=free).desired(PoolLoad(0.0, ready, starting, **load))


def test_replicas_in_proportion_to_the_metric_over_its_target():
    assert once({"concurrency": 10}, 4, in_flight=75) == 8  # ceil(4 x (75/4) / 10) = ceil(7.5)
    assert once({"running": 10}, 4, running=75) == 8
    assert once({"waiting": 2}, 4, waiting=3) == 2  # ceil(1.5)
    assert once({"held": 5}, 4, held=31) == 7  # ceil(6.2)
    assert once({"kv_usage": 0.5}, 4, kv_usage=0.8) == 7  # ceil(4 x 1.6)
    assert once({"ttft_p90_s": 0.4}, 3, ttft_p90_s=1.0, in_flight=1) == 8  # ceil(3 x 2.5)


def test_a_whole_number_of_replicas_is_not_rounded_up_for_an_error_of_1e_16():
    assert once({"kv_usage": 0.1}, 3, kv_usage=0.3) == 9  # 3 x 0.3 / 0.1 = 8.999..., 0.3 / 0.1 x 3 too
    assert once({"kv_usage": 0.7}, 10, kv_usage=0.77) == 10
    assert once({"concurrency": 0.1}, 1, in_flight=3) == 30  # 3 / 0.1 = 30.000000000000004 in other orders


def test_no_step_within_the_tolerance():
    seen = {in_flight: once({"concurrency": 10}, 10, in_flight=in_flight) for in_flight in (89, 90, 110, 111)}
    assert seen == {89: 9, 90: 10, 110: 10, 111: 12}
    strict = hpa({"concurrency": 10}, tolerance=0)
    assert strict.desired(PoolLoad(0.0, 10, in_flight=101)) == 11


def test_the_metric_that_asks_for_most_counts():
    targets = {"concurrency": 10, "waiting": 2, "kv_usage": 0.8}
    assert once(targets, 3, in_flight=20, waiting=9, kv_usage=0.99) == 5  # 2, ceil(4.5), ceil(3.7)
    assert once(targets, 3, in_flight=20, waiting=1, kv_usage=0.20) == 2  # 2, 1, 1


def test_replicas_that_start_count_as_idle_when_the_pool_grows():
    """2 ready with 30 waiting and a target of 5 need 6 in all, whatever is on its way."""
    assert once({"waiting": 5}, 2, starting=0, waiting=30) == 6
    assert once({"waiting": 5}, 2, starting=2, waiting=30) == 6
    assert once({"waiting": 5}, 2, starting=4, waiting=30) == 6
    assert once({"waiting": 5}, 2, starting=9, waiting=30) == 11  # 6 of 11: not a reason to shrink
    assert once({"waiting": 5}, 2, starting=3, waiting=10) == 5  # the two are right at their target


def test_replicas_that_start_count_as_loaded_to_the_target_when_the_pool_shrinks():
    assert once({"waiting": 5}, 4, starting=0, waiting=5) == 1
    assert once({"waiting": 5}, 4, starting=2, waiting=5) == 3  # 1 + 2


def test_what_the_gateway_counts_is_over_every_replica_ordered():
    assert once({"concurrency": 10}, 2, starting=18, in_flight=200) == 20
    assert once({"concurrency": 10}, 2, starting=18, in_flight=250) == 25
    assert once({"held": 5}, 0, starting=2, held=100) == 20  # known though nothing is ready


def test_an_unknown_metric_forbids_to_shrink_but_not_to_grow():
    both = {"concurrency": 10, "ttft_p90_s": 0.5}
    assert once(both, 4, in_flight=10) == 4
    assert once(both, 4, in_flight=70) == 7
    assert once({"ttft_p90_s": 0.5}, 4, in_flight=10) == 4
    assert once({"kv_usage": 0.5}, 0, starting=3) == 3


def test_a_pool_with_nothing_to_do_has_a_latency_of_zero():
    assert once({"ttft_p90_s": 0.5}, 4) == 1
