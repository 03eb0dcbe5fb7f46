"""The gateway's queue: order, fairness within its bound, limits, expiry, and that nobody is lost."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.queue_model import Model
from pydantic import ValidationError

from simroute.errors import SimulationError
from simroute.policy.admission import FleetLoad
from simroute.policy.gateway_queue import GATEWAY_FULL, TENANT_FULL, GatewayQueue, GatewayQueueOptions
from simroute.workload.request import Request

ORDERS = ["fifo", "priority", "fair", "priority_fair"]


def queue(**options):
    return GatewayQueue(GatewayQueueOptions(**options))


def requests(text, tokens=100):
    """`a a:300 b!-1`: tenants, with prompt tokens after a colon and a priority after a mark."""
    made = []
    for word in text.split():
        head, _, priority = word.partition("!")
        tenant, _, length = head.partition(":")
        made.append(Request(len(made), 0.0, int(length or tokens), 10, tenant=tenant, priority=int(priority or 0)))
    return made


def push_all(q, made, now_s=0.0):
    assert [q.push(r, now_s) for r in made] == [None] * len(made)
    return made


def pop_all(q, now_s=0.0):
    """Tenants with the running number of their request, in the order of leaving."""
    left, seen = [], {}
    while (r := q.pop(now_s)) is not None:
        left.append(r)
        seen.setdefault(r.tenant, []).append(r)
    return " ".join(f"{r.tenant}{[*seen[r.tenant]].index(r) + 1}" for r in left)


def indices(q):
    return [r.index for r in iter(lambda: q.pop(0.0), None)]


def test_first_in_first_out_whatever_the_tenant_or_priority():
    q = queue()
    push_all(q, requests("a a:900 b!-5 a b"))
    assert len(q) == 5
    assert indices(q) == [0, 1, 2, 3, 4]
    assert len(q) == 0


def test_lower_priority_numbers_go_first_and_equals_as_they_came():
    q = queue(order="priority")
    push_all(q, requests("a!1 b!0 a!0 c!2 c!-1 b!1"))
    assert indices(q) == [4, 1, 2, 0, 5, 3]


def test_a_priority_that_was_used_up_can_come_again():
    q = queue(order="priority")
    early, late = requests("a!0 a!5")
    push_all(q, [late, early])
    assert q.pop(0.0) is early
    push_all(q, [early])
    assert [q.pop(0.0), q.pop(0.0), q.pop(0.0)] == [early, late, None]


def test_fair_by_hand_with_weights():
    """100 tokens take 50 of a's virtual time (weight 2) and 100 of b's.

    Starts: a 0, 50, 100; b 0, 100, 200. The second of b was tagged before the third of a, so it goes first at 100.
    """
    q = queue(order="fair", weights={"a": 2})
    push_all(q, requests("a a a b b b"))
    assert pop_all(q) == "a1 b1 a2 b2 a3 b3"


def test_fair_by_hand_with_lengths():
    """One prompt of 300 tokens is worth three of 100."""
    q = queue(order="fair")
    push_all(q, requests("a:300 a:300 b b b b b"))
    assert pop_all(q) == "a1 b1 b2 b3 a2 b4 b5"


def test_who_comes_late_is_owed_nothing():
    """After ten of a, b starts at the virtual time of the tenth (900), not at 0: from there they alternate."""
    q = queue(order="fair")
    push_all(q, requests(" ".join("a" * 20)))
    for _ in range(10):
        q.pop(0.0)
    push_all(q, requests("b b b b b"))
    assert "".join(q.pop(0.0).tenant for _ in range(10)) == "bababababa"


def test_an_idle_tenant_saves_nothing_up():
    """b was served once, then idled while a had nine more; back again, it takes turns."""
    q = queue(order="fair")
    push_all(q, requests("b " + " ".join("a" * 20)))
    for _ in range(11):
        q.pop(0.0)
    push_all(q, requests("b b b"))
    assert "".join(q.pop(0.0).tenant for _ in range(6)) == "bababa"


def test_who_sends_one_request_at_a_time_is_charged_for_it_all_the_same():
    """The first of a takes it to 300; its second, sent after the first left, is behind three of b."""
    q = queue(order="fair")
    push_all(q, requests("a:300 b b b b"))
    assert q.pop(0.0).tenant == "a"
    push_all(q, requests("a:300"))
    assert pop_all(q) == "b1 b2 b3 a1 b4"


def test_priority_comes_before_fairness_and_fairness_holds_inside_a_band():
    q = queue(order="priority_fair", weights={"a": 2})
    push_all(q, requests("a!1 a!1 a!1 b!1 b!1 c!0 c!0 d!0"))
    assert pop_all(q) == "c1 d1 c2 a1 b1 a2 b2 a3"


sizes = st.lists(st.integers(1, 1000), min_size=1, max_size=30)


@given(sizes, sizes, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_two_backlogged_tenants_keep_the_bound_of_start_time_fair_queueing(of_a, of_b, weight_a, weight_b):
    """In any interval in which both wait, |W_a/w_a - W_b/w_b| <= l_a/w_a + l_b/w_b (Goyal et al., theorem 1)."""
    q = queue(order="fair", weights={"a": weight_a, "b": weight_b})
    push_all(q, [Request(i, 0.0, n, 1, tenant="a") for i, n in enumerate(of_a)])
    push_all(q, [Request(i, 0.0, n, 1, tenant="b") for i, n in enumerate(of_b)])
    waiting = {"a": len(of_a), "b": len(of_b)}
    differences = [0.0]
    while waiting["a"] and waiting["b"]:
        r = q.pop(0.0)
        waiting[r.tenant] -= 1
        served = r.input_tokens / weight_a if r.tenant == "a" else -r.input_tokens / weight_b
        differences.append(differences[-1] + served)
    bound = max(of_a) / weight_a + max(of_b) / weight_b
    assert all(abs(later - earlier) <= bound * (1 + 1e-9) for earlier, later in combinations(differences, 2))


def test_nobody_is_charged_for_what_was_removed():
    for order in ("fair", "priority_fair"):
        q = queue(order=order)
        a1, huge, a2, *bs = push_all(q, requests("a a:9000 a b b b"))
        assert q.remove(huge)
        assert indices(q) == [a1.index, bs[0].index, a2.index, bs[1].index, bs[2].index]


def test_who_inherits_the_front_inherits_its_start():
    q = queue(order="fair")
    huge, *_ = push_all(q, requests("a:9000 b b a"))
    q.remove(huge)
    assert pop_all(q) == "a1 b1 b2"


def test_a_tenant_that_left_by_removal_comes_back_at_the_time_of_now():
    q = queue(order="fair")
    (gone,) = push_all(q, requests("b"))
    push_all(q, requests(" ".join("a" * 10)))
    q.remove(gone)
    for _ in range(5):
        q.pop(0.0)
    push_all(q, requests("b b b"))
    assert "".join(q.pop(0.0).tenant for _ in range(6)) == "bababa"


def test_a_limit_for_all_and_one_for_each_tenant():
    q = queue(max_held=3, max_held_per_tenant=2)
    a1, a2, a3, b1, b2, b3 = requests("a a a b b b")
    assert [q.push(r, 0.0) for r in (a1, a2, a3, b1, b2)] == [None, None, TENANT_FULL, None, GATEWAY_FULL]
    assert q.pop(0.0) is a1
    assert [q.push(r, 0.0) for r in (a3, b2)] == [None, GATEWAY_FULL]
    assert q.remove(a2)
    assert [q.push(r, 0.0) for r in (b2, b3)] == [None, GATEWAY_FULL]
    assert [q.pop(0.0) for _ in range(4)] == [b1, a3, b2, None]


def test_the_fleet_has_room_up_to_so_many_a_seat():
    load = FleetLoad(ready_replicas=2, seats=20, in_flight=19)
    assert queue().has_room(load)
    load.in_flight = 20
    assert not queue().has_room(load)
    assert queue(in_flight_per_seat=1.5).has_room(load)
    assert not queue().has_room(FleetLoad())


@pytest.mark.parametrize("order", ORDERS)
def test_requests_expire_oldest_first(order):
    q = queue(order=order, max_wait_s=10)
    a, b, c = requests("a!3 b!2 c!1")
    for r, now_s in ((a, 0.0), (b, 3.0), (c, 5.0)):
        q.push(r, now_s)
    assert q.next_expiry_s == 10.0
    assert q.expire(9.99) == []
    assert q.expire(10.0) == [a]
    assert q.next_expiry_s == 13.0
    assert q.expire(20.0) == [b, c]
    assert (len(q), q.next_expiry_s, q.pop(20.0)) == (0, None, None)


def test_without_a_longest_wait_nothing_expires():
    q = queue()
    (a,) = push_all(q, requests("a"))
    assert (q.next_expiry_s, q.expire(1e9)) == (None, [])
    assert q.pop(1e9) is a


def test_who_has_waited_too_long_is_never_handed_out_but_kept_for_expire():
    q = queue(max_wait_s=10, max_held=2)
    a, b, c, d = requests("a b c d")
    q.push(a, 0.0)
    q.push(b, 5.0)
    assert q.pop(10.0) is b
    assert q.next_expiry_s == 10.0
    assert [q.push(r, 12.0) for r in (c, d)] == [None, None]
    assert not q.remove(a)
    assert q.expire(12.0) == [a]
    assert q.next_expiry_s == 22.0


def test_a_request_can_be_taken_out_once_and_pushed_once():
    q = queue()
    a, b = push_all(q, requests("a b"))
    with pytest.raises(SimulationError, match="request 0: already held by the gateway"):
        q.push(a, 0.0)
    assert q.remove(a)
    assert not q.remove(a)
    assert q.pop(0.0) is b
    assert not q.remove(b)
    assert q.push(a, 1.0) is None


operations = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "pop", "remove", "expire"]),
        st.sampled_from("abc"),
        st.integers(0, 2),
        st.sampled_from([1, 100, 250]),
        st.floats(0.0, 4.0),
    ),
    max_size=80,
)


@given(st.sampled_from(ORDERS), operations)
def test_everyone_leaves_once_and_in_the_order_of_the_definition(order, ops):
    weights = {"a": 2.0, "b": 0.5}
    q, model = queue(order=order, weights=weights, max_wait_s=10.0), Model(order, weights)
    pushed, left, now_s, since = [], [], 0.0, {}
    for what, tenant, priority, tokens, gap_s in ops:
        now_s += gap_s
        late = q.expire(now_s)
        assert late == [r for r in model.held if since[r] + 10.0 <= now_s]
        model.held = [r for r in model.held if r not in late]
        left += late
        if what == "push":
            r = Request(len(pushed), now_s, tokens, 1, tenant=tenant, priority=priority)
            since[r] = now_s
            pushed.append(r)
            model.push(r)
            assert q.push(r, now_s) is None
        elif what == "pop":
            expected = model.pop() if model.held else None
            assert q.pop(now_s) is expected
            left += [expected] if expected else []
        elif what == "remove" and model.held:
            r = model.held[priority % len(model.held)]
            model.held.remove(r)
            assert q.remove(r)
            left.append(r)
        assert len(q) == len(model.held)
        assert q.next_expiry_s == (since[model.held[0]] + 10.0 if model.held else None)
    left += iter(lambda: q.pop(now_s), None)
    assert sorted(r.index for r in left) == list(range(len(pushed)))


def test_who_is_set_aside_is_passed_and_comes_back_before_those_who_came_later():
    q = queue()
    made = push_all(q, requests("a b c d"))
    for r in made[:2]:
        assert q.peek(0.0) is r
        q.set_aside(r)
    assert q.pop(0.0) is made[2]
    assert len(q) == 3
    q.recall()
    assert indices(q) == [0, 1, 3]


def test_who_is_set_aside_is_counted_expires_in_turn_and_can_be_taken_out():
    q = queue(max_held=3, max_wait_s=5.0)
    made = push_all(q, requests("a"), 0.0) + push_all(q, requests("a"), 1.0) + push_all(q, requests("a"), 2.0)
    for r in made[:2]:
        q.set_aside(r)
    assert q.push(Request(9, 2.0, 100, 10), 2.0) == GATEWAY_FULL
    assert q.next_expiry_s == 5.0
    assert q.expire(5.0) == made[:1]
    assert q.remove(made[1])
    assert q.peek(5.0) is made[2]
    q.recall()
    assert q.pop(5.0) is made[2]
    assert (len(q), q.peek(5.0), q._bands, q._of_tenant) == (0, None, {}, {})


def test_nobody_is_charged_for_being_set_aside():
    """a and b take turns as if the first of a, which is nine times as long, had never been there."""
    q = queue(order="fair")
    made = push_all(q, requests("a:900 a b a b"))
    q.set_aside(made[0])
    assert pop_all(q) == "a1 b1 a2 b2"


@given(st.sampled_from(ORDERS), st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.data())
def test_setting_aside_loses_nobody_and_keeps_each_tenant_s_order(order, tenants, data):
    q = queue(order=order)
    made = push_all(q, requests(" ".join(tenants)))
    left = []
    for _ in range(data.draw(st.integers(0, 20))):
        what = data.draw(st.sampled_from(["aside", "recall", "pop"]))
        head = q.peek(0.0)
        if what == "recall":
            q.recall()
        elif head is not None and what == "aside":
            q.set_aside(head)
        elif head is not None:
            assert q.pop(0.0) is head
            left.append(head)
    assert len(q) == len(made) - len(left)
    q.recall()
    rest = list(iter(lambda: q.pop(0.0), None))
    assert sorted(r.index for r in left + rest) == list(range(len(made)))
    for tenant in set(tenants):
        of_tenant = [r.index for r in rest if r.tenant == tenant]
        assert of_tenant == sorted(of_tenant)


def test_many_who_come_and_go_leave_nothing_behind():
    q = queue(order="fair")
    (stays,) = push_all(q, requests("stays"))
    for r in requests(" ".join(["a b"] * 2000)):
        q.push(r, 0.0)
        q.remove(r)
    (band,) = q._bands.values()
    assert len(band._heap) < 200
    assert q.pop(0.0) is stays
    assert q._bands == {}
    assert q._of_tenant == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "lifo"}, "'fifo', 'priority', 'fair' or 'priority_fair'"),
        ({"max_held": 0}, "greater than or equal to 1"),
        ({"weights": {"a": 0}}, "greater than 0"),
        ({"max_wait_s": float("nan")}, "finite number"),
        ({"max_hold": 3}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        GatewayQueueOptions(**options)
