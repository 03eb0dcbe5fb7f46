"""Windows and policies step by step, as Kubernetes takes them."""

from __future__ import annotations

from policy.scaling import follow, hpa

from simroute.policy.autoscaling import PoolLoad


def test_growth_by_default_step_by_step():
    """200 in flight at 10 each need 20. In 15 s a pool may grow by 4 or double, whichever is more: 1, 5, 10, 20."""
    assert follow(hpa({"concurrency": 10}), 1, [200] * 5) == [5, 10, 20, 20, 20]


def test_growth_is_counted_over_the_period_not_by_the_look():
    """Looked at every 5 s: the step of 0 s uses up what 5 s and 10 s might take; at 15 s it is out of the period."""
    assert follow(hpa({"concurrency": 10}), 1, [200] * 8, every_s=5.0) == [5, 5, 5, 10, 10, 10, 20, 20]


def test_shrinking_by_default_waits_for_the_largest_recommendation_of_300_s():
    """Load falls after 45 s. At 330 s the 20 of 45 s is still in the window, at 345 s it is exactly 300 s old: out."""
    sizes = follow(hpa({"concurrency": 10}), 20, [200] * 4 + [50] * 20)
    assert sizes == [20] * 23 + [5]  # the look number 23 is the one at 345 s


def test_a_dip_within_the_window_changes_nothing():
    sizes = follow(hpa({"concurrency": 10}), 20, ([50] * 19 + [200]) * 3)
    assert set(sizes) == {20}


def test_a_window_for_growth_takes_the_least_recommendation():
    """2 until 0 s, then 6: at 60 s the last 2 is 60 s old and out of the window. A spike of 45 s is not followed."""
    patient = {"scale_up": {"stabilization_window_s": 60}}
    assert follow(hpa({"concurrency": 10}, **patient), 2, [20] + [60] * 4) == [2, 2, 2, 2, 6]
    assert follow(hpa({"concurrency": 10}, **patient), 2, [20] + [60] * 3 + [20] * 3) == [2] * 7


def test_each_direction_has_its_own_window():
    """Down by 30 s: the 20 of 0 s is out at 30 s. Up by 60 s: the 5 of 45 s is in the way until 105 s."""
    rules = {"scale_up": {"stabilization_window_s": 60}, "scale_down": {"stabilization_window_s": 30}}
    sizes = follow(hpa({"concurrency": 10}, **rules), 20, [200] + [50] * 3 + [100] * 5)
    assert sizes == [20, 20, 5, 5, 5, 5, 5, 10, 10]


def policies(pods, percent, period_s=60, select="Max", window_s=0):
    return {
        "stabilization_window_s": window_s,
        "select_policy": select,
        "policies": [
            {"type": "Pods", "value": pods, "period_s": period_s},
            {"type": "Percent", "value": percent, "period_s": period_s},
        ],
    }


def test_the_example_of_the_kubernetes_documentation():
    """80 to 10 with 4 pods or 10% a minute: 8 (10% of 80), 8 (7.2 rounded up), ... and 4 from 40 on."""
    scaler = hpa({"concurrency": 10}, scale_down=policies(4, 10))
    steps = [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12, 10, 10]
    assert follow(scaler, 80, [100] * 15, every_s=60.0) == steps


def test_policies_count_what_was_taken_in_their_period():
    """Every 30 s with 60 s periods: the 8 taken at 0 s leave nothing at 30 s, and are forgotten at 60 s."""
    scaler = hpa({"concurrency": 10}, scale_down=policies(4, 10))
    assert follow(scaler, 80, [100] * 5, every_s=30.0) == [72, 72, 64, 64, 57]


def test_min_selects_the_smaller_step_and_disabled_none():
    """4 pods or 10% of 80: the smaller is 4; at 30 the 10% are 3."""
    careful = hpa({"concurrency": 10}, scale_down=policies(4, 10, select="Min"))
    assert follow(careful, 80, [100, 100], every_s=60.0) == [76, 72]
    careful = hpa({"concurrency": 10}, scale_down=policies(4, 10, select="Min"))
    assert follow(careful, 30, [100], every_s=60.0) == [27]
    assert follow(hpa({"concurrency": 10}, scale_down={"select_policy": "Disabled"}), 80, [100] * 99) == [80] * 99
    assert follow(hpa({"concurrency": 10}, scale_up={"select_policy": "Disabled"}), 3, [900] * 3) == [3] * 3


def test_growth_by_percent_is_exact_and_rounded_up():
    """10% of 10 is one, though 10 x 1.1 is 11.000000000000002 to a float; 10% of 11 is a part of a second."""
    scaler = hpa({"concurrency": 10}, scale_up=policies(1, 10))
    assert follow(scaler, 10, [900] * 3, every_s=60.0) == [11, 13, 15]


def test_a_step_back_gives_room_for_growth():
    """Grown by 4 at 0 s, lost 3 by 15 s: 1 of the 4 is used, so that 3 more are allowed within the minute."""
    scaler = hpa({"concurrency": 10}, scale_up=policies(4, 1))
    assert scaler.desired(PoolLoad(0.0, 2, in_flight=900)) == 6
    assert scaler.desired(PoolLoad(15.0, 6, in_flight=900)) == 6
    assert scaler.desired(PoolLoad(30.0, 3, in_flight=900)) == 6


def test_a_pool_outside_its_limits_is_taken_back_at_once():
    assert hpa({"concurrency": 10}, 3, 10).desired(PoolLoad(0.0, 12, in_flight=120)) == 10
    assert hpa({"concurrency": 10}, 3, 10).desired(PoolLoad(0.0, 1, in_flight=1)) == 3
    assert follow(hpa({"concurrency": 10}, 3, 10), 10, [999] * 2 + [0] * 30)[-1] == 3
