"""The quantization-aware policy: hand-worked ladders and hysteresis, a brute-force reference, the floor as a law."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.stage import LinearSpeed, Stage, ask_for, variant

from simroute.errors import UsageError
from simroute.policy.context import Targets

FLAT = {
    signal: {"enter": limit, "leave": limit}
    for signal, limit in [("kv_cache_usage", 0.8), ("occupancy", 0.9), ("waiting", 4.0)]
}
INT4, FP8, BF16 = [0, 1], [2, 3], [4]


def ladder(fleet):
    """Listed out of price order on purpose: fp8 (2 USD), int4 (1 USD), bf16 (3 USD) are replicas 2-3, 0-1 and 4."""
    return fleet(
        {"chat": 0.7, "coding": 0.8, "proofs": 0.99},
        int4=(2, 1.0, {"chat": 0.8, "coding": 0.6, "proofs": 0.2}),
        fp8=(2, 2.0, {"chat": 0.9, "coding": 0.8, "proofs": 0.4}),
        bf16=(1, 3.0, {"chat": 0.9, "coding": 0.9, "proofs": 0.5}),
    )


def load(f, replicas, **signals):
    for r in replicas:
        for name, value in signals.items():
            setattr(f.seen[r], name, value)


@pytest.mark.parametrize(("request_class", "replica"), [("chat", 0), ("coding", 2), ("proofs", 4), ("other", 0)])
def test_an_idle_fleet_serves_each_class_by_the_cheapest_that_is_good_enough(fleet, request_class, replica):
    f = ladder(fleet)
    assert f.pick(f.policy("quant_aware"), request_class) == replica


def test_price_decides_not_the_order_of_the_pools(fleet):
    f = fleet(big=(1, 3.0, {}), small=(1, 1.0, {}), middle=(1, 2.0, {}))
    policy = f.policy("quant_aware")
    assert f.pick(policy) == 1
    load(f, [1], kv_cache_usage=0.9)
    assert f.pick(policy) == 2


def test_inside_a_variant_the_fewest_in_flight_then_the_lowest_number(fleet):
    f = ladder(fleet)
    policy = f.policy("quant_aware")
    load(f, [0], in_flight=2)
    assert f.pick(policy) == 1
    load(f, [1], in_flight=2)
    assert f.pick(policy) == 0


@pytest.mark.parametrize(
    "pressure",
    [{"kv_cache_usage": 0.85}, {"num_requests_running": 9}, {"in_flight": 9}, {"num_requests_waiting": 8}],
)
def test_each_signal_alone_makes_requests_spill_upward(fleet, pressure):
    f = ladder(fleet)
    policy = f.policy("quant_aware")
    load(f, INT4, **pressure)
    assert f.pick(policy) == 2
    load(f, FP8, **pressure)
    assert f.pick(policy) == 4


def test_pressure_is_the_mean_over_the_replicas_of_a_variant(fleet):
    f = ladder(fleet)
    policy = f.policy("quant_aware")
    load(f, [0], kv_cache_usage=1.0, in_flight=1)
    load(f, [1], kv_cache_usage=0.6)
    assert f.pick(policy) == 1, "mean 0.80 is below 0.85"
    load(f, [1], kv_cache_usage=0.75)
    assert f.pick(policy) == 2, "mean 0.875 is above 0.85"


def test_hysteresis_holds_between_leave_and_enter(fleet):
    f = ladder(fleet)
    policy = f.policy("quant_aware")
    went = []
    for usage in [0.80, 0.84, 0.85, 0.80, 0.76, 0.75, 0.74, 0.80, 0.84, 0.90]:
        load(f, INT4, kv_cache_usage=usage)
        went.append("int4" if f.pick(policy) in INT4 else "fp8")
    assert went == ["int4", "int4", "fp8", "fp8", "fp8", "fp8", "int4", "int4", "int4", "fp8"]


def test_pressure_is_shared_by_the_classes(fleet):
    f = ladder(fleet)
    policy = f.policy("quant_aware")
    load(f, FP8, kv_cache_usage=0.9)
    assert f.pick(policy, "coding") == 4
    load(f, FP8, kv_cache_usage=0.8)
    load(f, INT4, kv_cache_usage=0.9)
    assert f.pick(policy, "chat") == 4, "coding found fp8 under pressure, and 0.8 does not yet release it"


def test_with_no_room_left_the_fewest_in_flight_for_the_seats_among_the_admissible(fleet):
    f = ladder(fleet)
    policy = f.policy("quant_aware")
    load(f, range(5), kv_cache_usage=1.0, in_flight=30)
    load(f, [3], in_flight=20)
    load(f, [0], in_flight=5)
    assert f.pick(policy, "coding") == 3, "replica 0 has fewer but int4 is below the floor"
    assert f.pick(policy, "chat") == 0


def test_with_no_room_left_more_seats_carry_more_requests(fleet):
    f = fleet(small=(1, 1.0, {}), large=(1, 2.0, {}))
    f.variants[1] = replace(f.variants[1], max_num_seqs=100)
    policy = f.policy("quant_aware")
    load(f, [0], kv_cache_usage=1.0, in_flight=20)
    load(f, [1], kv_cache_usage=1.0, in_flight=150)
    assert f.pick(policy) == 1, "150 in 100 seats is less than 20 in 10"


def test_rejects_or_takes_the_best_when_nothing_meets_the_floor(fleet):
    f = ladder(fleet)
    assert f.pick(f.policy("quant_aware"), "proofs") == 4
    reject = f.policy("quant_aware", when_no_variant="reject")
    assert f.ask(reject, "proofs") == (-1, "no variant meets the quality floor")


def test_quality_bound_low_moves_the_ladder_up(fleet):
    f = ladder(fleet)
    assert f.pick(f.policy("quant_aware", quality_bound="low"), "coding") == 4


def test_a_pool_may_have_its_own_bands(fleet):
    f = ladder(fleet)
    policy = f.policy("quant_aware", pools={"int4": {"kv_cache_usage": {"enter": 0.5, "leave": 0.4}}})
    load(f, range(5), kv_cache_usage=0.6)
    assert f.pick(policy) == 2
    with pytest.raises(UsageError, match="quant_aware: pools: unknown pool 'int44': did you mean int4"):
        f.policy("quant_aware", pools={"int44": {}})


signals = st.tuples(
    st.integers(0, 12), st.integers(0, 10), st.integers(0, 6), st.sampled_from([0.0, 0.5, 0.79, 0.8, 0.9, 1.0])
)
names = ("in_flight", "num_requests_running", "num_requests_waiting", "kv_cache_usage")
classes = st.sampled_from(["chat", "coding", "proofs", "other"])


def show(f, loads):
    for seen, values in zip(f.seen, loads, strict=True):
        for name, value in zip(names, values, strict=True):
            setattr(seen, name, value)


@given(st.lists(st.tuples(classes, st.lists(signals, min_size=5, max_size=5)), max_size=30))
def test_never_below_the_floor(fleet, steps):
    f = ladder(fleet)
    policies = [f.policy("quant_aware", when_no_variant=rule) for rule in ("best", "reject")]
    for request_class, loads in steps:
        show(f, loads)
        best, strict = (f.pick(policy, request_class) for policy in policies)
        if request_class == "proofs":
            assert (best, strict) == (4, -1)
            continue
        for replica in (best, strict):
            quality = f.seen[replica].variant.quality.get(request_class, (0.0,))[0]
            assert quality >= f.floor.get(request_class, 0.0)


def reference(f, request_class):
    """With enter = leave there is no memory: the choice in plain terms, from scratch."""
    floor = f.floor.get(request_class, 0.0)
    pools = [p for p in (INT4, FP8, BF16) if f.seen[p[0]].variant.quality.get(request_class, (0.0,))[0] >= floor]
    for pool in pools:
        seen = [f.seen[r] for r in pool]
        kv = sum(s.kv_cache_usage for s in seen) / len(seen)
        requests = sum(max(s.in_flight, s.num_requests_running + s.num_requests_waiting) for s in seen) / len(seen)
        waiting = sum(s.num_requests_waiting for s in seen) / len(seen)
        if kv < 0.8 and requests / 10 < 0.9 and waiting < 4:
            return min(pool, key=lambda r: (f.seen[r].in_flight, r))
    return min((r for pool in pools for r in pool), key=lambda r: (f.seen[r].in_flight, r))


@given(st.sampled_from(["chat", "coding", "other"]), st.lists(signals, min_size=5, max_size=5))
def test_without_hysteresis_it_is_the_cheapest_admissible_variant_with_room(fleet, request_class, loads):
    f = ladder(fleet)
    show(f, loads)
    assert f.pick(f.policy("quant_aware", **FLAT), request_class) == reference(f, request_class)


ONE_SECOND = {"default": Targets(ttft_s=1.0)}
SLOW, FAST = LinearSpeed(token_s=4e-3), LinearSpeed(token_s=1e-3)


def timed(**options):
    """Replicas 0, 1 are int4 and slow (4 ms a prompt token), 2 and 3 bf16 and fast (1 ms), 4 dearer, speed unknown."""
    return Stage(
        (2, variant("int4", 1.0, {"chat": 0.8, "coding": 0.6}, speed=SLOW)),
        (2, variant("bf16", 2.0, {"chat": 0.9, "coding": 0.9}, speed=FAST)),
        (1, variant("other", 3.0, {"chat": 0.9, "coding": 0.9}, speed=None)),
        floor={"coding": 0.8},
        **options,
    )


def test_with_predictions_a_variant_must_be_fast_enough_too():
    stage = timed(targets=ONE_SECOND)
    blind, sharp = stage.policy("quant_aware"), stage.policy("quant_aware", predict_slo=True)
    assert (blind.counts_tokens, sharp.counts_tokens) == (False, True)
    short, long = ask_for(tokens=200), ask_for(tokens=300)
    assert [stage.pick(policy, short) for policy in (blind, sharp)] == [0, 0], "0.8 s"
    assert [stage.pick(policy, long) for policy in (blind, sharp)] == [0, 2], "1.2 s on int4"
    assert stage.pick(stage.policy("quant_aware", predict_slo=True, slack=0.7), short) == 2, "0.8 s of 0.7 s"


def test_the_prediction_is_of_the_replica_that_would_serve():
    stage = timed(targets=ONE_SECOND)
    policy = stage.policy("quant_aware", predict_slo=True)
    stage.seen[0].load(1, 10, 0)
    stage.seen[1].load(2, 300, 300)
    assert stage.pick(policy) == 0, "the fewest in flight, 0.4 s and one decode step"
    stage.seen[0].load(1, 300, 300)
    assert stage.pick(policy) == 2, "1.2 + 0.4 s"


def test_a_variant_of_unknown_speed_is_judged_by_its_pressure_alone():
    stage = timed(targets=ONE_SECOND)
    policy = stage.policy("quant_aware", predict_slo=True)
    assert stage.pick(policy, ask_for(tokens=2000)) == 4
    stage.seen[4].kv_cache_usage = 0.9
    assert stage.pick(policy, ask_for(tokens=2000)) == 2, "2 s is the smallest miss"


def test_when_all_with_room_are_too_slow_the_smallest_miss_serves_whatever_the_price():
    stage = timed(targets=ONE_SECOND)
    stage.down(4)
    policy = stage.policy("quant_aware", predict_slo=True)
    for replica, tokens in enumerate([500, 500, 3000, 3000]):
        stage.seen[replica].load(1, tokens, tokens)
    assert stage.pick(policy) == 0, "2.4 s against 3.1 s"
    assert stage.pick(policy, ask_for("coding")) == 2, "int4 is below the floor"


def test_without_targets_predictions_change_nothing():
    stage = timed(targets={"batch": Targets(ttft_s=1.0)})
    assert stage.pick(stage.policy("quant_aware", predict_slo=True), ask_for(tokens=9000)) == 0


def full(stage):
    for seen in stage.seen:
        seen.kv_cache_usage, seen.in_flight = 0.95, 10
    stage.seen[1].in_flight = 5
    return stage


@pytest.mark.parametrize(
    ("fallback", "chat", "coding"),
    [([], 1, 2), (["other"], 4, 4), (["bf16", "other"], 2, 2), (["int4", "other"], 1, 4), (["int4"], 1, 2)],
)
def test_with_everything_under_pressure_the_first_of_the_fallback_that_meets_the_floor_serves(fallback, chat, coding):
    stage = full(timed())
    policy = stage.policy("quant_aware", fallback=fallback)
    assert stage.pick(policy) == chat
    assert stage.pick(policy, ask_for("coding")) == coding


def test_the_fallback_is_for_overload_only_and_names_pools_that_exist():
    stage = timed()
    policy = stage.policy("quant_aware", fallback=["other"])
    assert stage.pick(policy) == 0
    full(stage)
    stage.down(4)
    assert stage.pick(policy) == 1, "the fallback is down"
    with pytest.raises(UsageError, match="quant_aware: fallback: unknown pool 'int5': did you mean int4"):
        stage.policy("quant_aware", fallback=["int5"])


def test_replicas_that_go_and_come_change_the_ladder():
    stage = timed()
    policy = stage.policy("quant_aware")
    stage.down(0)
    assert stage.pick(policy) == 1
    stage.down(1)
    assert stage.pick(policy) == 2
    stage.down(2, 3, 4)
    assert stage.ask(policy) == (-1, "no replica is ready")
    stage.up(0, 2)
    assert (stage.pick(policy), stage.pick(policy, ask_for("coding"))) == (0, 2)


def test_a_pool_stays_under_pressure_when_one_of_its_replicas_goes_but_not_when_all_went():
    stage = timed()
    policy = stage.policy("quant_aware")

    def at(usage):
        stage.seen[0].kv_cache_usage = stage.seen[1].kv_cache_usage = usage
        return stage.pick(policy)

    assert [at(0.80), at(0.90)] == [0, 2]
    stage.down(1)
    assert at(0.80) == 2, "still above leave"
    stage.up(1)
    assert at(0.80) == 2
    stage.down(0, 1)
    stage.up(0)
    assert at(0.80) == 0, "what came up is another pool"


def test_pressure_is_the_mean_over_the_replicas_that_are_up():
    stage = timed()
    policy = stage.policy("quant_aware")
    stage.seen[0].kv_cache_usage, stage.seen[1].kv_cache_usage = 0.9, 0.1
    assert stage.pick(policy) == 0
    stage.down(1)
    assert stage.pick(policy) == 2


@given(
    st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=5, max_size=5),
            st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1)), min_size=5, max_size=5),
            st.sampled_from(["chat", "coding"]),
        ),
        max_size=10,
    ),
    st.booleans(),
)
def test_never_below_the_floor_nor_to_a_replica_that_is_not_ready(steps, predict_slo):
    stage = timed(targets=ONE_SECOND)
    policy = stage.policy("quant_aware", predict_slo=predict_slo, fallback=["int4"])
    for ups, loads, request_class in steps:
        for seen, up, (requests, usage) in zip(stage.seen, ups, loads, strict=True):
            seen.load(requests, 100 * requests, 50 * requests)
            seen.kv_cache_usage = usage
            stage.members.set(seen.replica, up)
        allowed = [r for r in range(5) if ups[r] and not (request_class == "coding" and r < 2)]
        chosen = stage.ask(policy, ask_for(request_class))
        assert chosen.replica in allowed if allowed else chosen == (-1, "no replica is ready")
