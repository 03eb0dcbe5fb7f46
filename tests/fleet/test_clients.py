"""Clients that wait: so many users at a time, and sessions whose next turn needs the last answer.

Steps take a second: an answer of n tokens takes n seconds.
"""

from __future__ import annotations

import numpy as np
import pytest
from fleet.fleets import GPU_LIKE
from fleet.living import a_pool, live, some
from fleet.seconds import Refusing, reasons, requests, seconds, statuses
from hypothesis import given, settings
from hypothesis import strategies as st

from simroute.fleet.options import ClientOptions, FleetOptions, Retries, RouterOptions
from simroute.results.metrics import summarise
from simroute.results.run import FleetRun, Status
from simroute.rng import stream
from simroute.workload.trace import Trace


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def clients(**options) -> FleetOptions:
    return FleetOptions(clients=ClientOptions(**options))


def think_s(mean_s: float, index: int) -> float:
    """How long the client of this request thinks after it."""
    return -mean_s * np.log1p(-stream(0, "think", index).random())


def most_at_once(run: FleetRun) -> int:
    """The most requests that were under way together."""
    ends = np.where(np.isnan(run.finish_s), run.left_s, run.finish_s)
    times = [(at_s, 1) for at_s in run.sent_s[np.isfinite(run.sent_s)]] + [(at_s, -1) for at_s in ends]
    return int(np.max(np.cumsum([change for _, change in sorted(times)])))


# -- users -------------------------------------------------------------------------------------------------------------


def test_users_send_the_trace_in_order_each_when_its_last_has_ended(exact):
    """Two users, whatever the trace's times are: answers of 2, 3, 1, 1 and 2 s."""
    trace = requests([0.0, 7.0, 8.0, 30.0, 90.0], [2, 3, 1, 1, 2])
    run = live(trace, [seconds(2)], clients(users=2), exact=exact)
    assert run.sent_s.tolist() == [0.0, 0.0, 2.0, 3.0, 3.0]
    assert run.finish_s.tolist() == [2.0, 3.0, 3.0, 4.0, 5.0]
    assert run.arrival_s is run.sent_s
    assert (run.first_token_s - run.arrival_s).tolist() == [1.0] * 5


def test_a_user_thinks_before_it_goes_on(exact):
    """One user alone: each request comes when the one before has ended and it has thought, for a time of its own."""
    run = live(requests(np.arange(20.0), 2), [seconds()], clients(users=1, think_s=3.0), exact=exact)
    thought = run.sent_s[1:] - run.finish_s[:-1]
    np.testing.assert_allclose(thought, [think_s(3.0, index) for index in range(19)])
    assert 1.0 < thought.mean() < 6.0


def test_tools_work_for_times_of_their_own():
    """After a request of class tool the user waits for a tool, not for itself."""
    kinds = ["tool", "chat"] * 5
    run = live(
        requests(np.arange(10.0), 2, request_class=kinds),
        [seconds()],
        clients(users=1, think_s=3.0, tools=frozenset({"tool"}), tool_s=60.0),
    )
    means = [60.0 if kind == "tool" else 3.0 for kind in kinds]
    np.testing.assert_allclose(
        run.sent_s[1:] - run.finish_s[:-1], [think_s(mean, index) for index, mean in enumerate(means[:-1])]
    )


@pytest.mark.parametrize("users", [1, 3, 8, 50])
def test_never_more_than_so_many_at_a_time(users):
    run = live(some(100, 50.0), [a_pool(2)], clients(users=users, think_s=0.05))
    assert most_at_once(run) == min(users, 100) or most_at_once(run) == users
    assert (run.status == Status.COMPLETED).all()
    assert (np.diff(run.sent_s) >= 0).all(), "the trace's order"


@settings(max_examples=20, deadline=None)
@given(
    users=st.integers(1, 12), timeout_s=st.sampled_from([0.3, 2.0]), most=st.integers(0, 2), seed=st.integers(0, 100)
)
def test_users_whose_calls_fail_go_on_with_the_next(users, timeout_s, most, seed):
    """A call with all its retries is one request of a user."""
    options = clients(users=users, timeout_s={"default": timeout_s}, retries=Retries(most=most, backoff_s=0.1))
    run = live(some(60, 50.0, seed), [a_pool(1)], options, seed=seed)
    assert np.isfinite(run.sent_s).all()
    assert most_at_once(run) <= users


def test_the_law_of_interactive_response_times():
    """Little's law over users: N = X (R + Z), with X the throughput, R the response and Z the thinking."""
    run = live(some(4000, 1.0), [a_pool(1)], clients(users=20, think_s=2.0))
    middle = (run.sent_s > 0.1 * run.end_s) & (run.sent_s < 0.9 * run.end_s)
    throughput = middle.sum() / (0.8 * run.end_s)
    response_s = (run.finish_s - run.sent_s)[middle].mean()
    thinking_s = np.mean([think_s(2.0, index) for index in np.flatnonzero(middle).tolist()])
    assert throughput * (response_s + thinking_s) == pytest.approx(20.0, rel=0.02)


def test_a_horizon_leaves_requests_that_were_never_sent():
    """Two seconds each for one user: at 5 s the third is under way, and the others have not been sent."""
    run = live(requests(np.arange(6.0), 2), [seconds()], clients(users=1), horizon_s=5.0)
    assert run.sent_s.tolist() == [0.0, 2.0, 4.0, np.inf, np.inf, np.inf]
    summary = summarise(run, {}, lambda pool, request_class: None)
    assert (summary["requests"]["arrived"], summary["requests"]["unfinished"]) == (3, 1)
    assert summary["slo_attainment"] == pytest.approx(2 / 3)


def test_users_slow_down_with_the_fleet_where_an_open_loop_drowns():
    """Ten a second for a fleet that serves five: with users there is no queue to speak of."""
    trace = some(300, 100.0)
    pool = a_pool(1, max_num_seqs=2)
    open_loop = live(trace, [pool], FleetOptions(router=RouterOptions(latency_s=1e-9)))
    closed = live(trace, [pool], clients(users=4))
    assert np.median(open_loop.first_token_s - open_loop.arrival_s) > 5.0
    assert np.median(closed.first_token_s - closed.arrival_s) < 1.0


# -- sessions ----------------------------------------------------------------------------------------------------------


def of_sessions(arrival_s, sessions, answers=3, **columns) -> Trace:
    return requests(arrival_s, answers, session=sessions, **columns)


def test_a_turn_waits_for_the_answer_before_it(exact):
    """One session's turns are due at 0, 1 and 10 s; answers take 3 s. Without a session nobody waits."""
    trace = of_sessions([0.0, 0.5, 1.0, 1.5, 10.0], [7, -1, 7, -1, 7])
    run = live(trace, [seconds(seats=8)], clients(wait_in_session=True), exact=exact)
    assert run.sent_s.tolist() == [0.0, 0.5, 3.0, 1.5, 10.0]
    assert run.finish_s[[0, 2, 4]].tolist() == [3.0, 6.0, 13.0]


def test_several_turns_that_are_due_go_out_one_by_one(exact):
    trace = of_sessions([0.0] * 4, [1, 1, 2, 1], [3, 2, 4, 1])
    run = live(trace, [seconds(2, seats=4)], clients(wait_in_session=True), exact=exact)
    assert run.sent_s.tolist() == [0.0, 3.0, 0.0, 5.0]


def test_a_client_reads_an_answer_before_it_writes_again(exact):
    """The next turn comes when it is due, or when the last answer was thought over, whichever is later."""
    arrivals = [0.0, 1.0, 2.0, 500.0]
    trace = of_sessions(arrivals, [7] * 4)
    run = live(trace, [seconds()], clients(wait_in_session=True, think_s=10.0), exact=exact)
    for turn in (1, 2, 3):
        read_s = run.finish_s[turn - 1] + think_s(10.0, turn - 1)
        assert run.sent_s[turn] == pytest.approx(max(arrivals[turn], read_s))
    assert run.sent_s[3] == 500.0


def test_an_agent_s_tool_works_between_its_calls(exact):
    """call, tool, call, tool: tools take a minute on average, people ten seconds."""
    kinds = ["agent", "chat", "agent", "chat"]
    trace = of_sessions([0.0] * 4, [7] * 4, request_class=kinds)
    options = clients(wait_in_session=True, think_s=10.0, tools=frozenset({"agent"}), tool_s=60.0)
    run = live(trace, [seconds()], options, exact=exact)
    pauses = run.sent_s[1:] - run.finish_s[:-1]
    np.testing.assert_allclose(pauses, [think_s(60.0, 0), think_s(10.0, 1), think_s(60.0, 2)])


def test_a_turn_without_an_answer_does_not_end_its_session():
    """The first is refused for good at 3 s, after two retries; only then the next is sent."""
    rule = Refusing(admits=lambda request: request.index != 0)
    options = FleetOptions(
        admission=(rule,), clients=ClientOptions(wait_in_session=True, retries=Retries(most=2, backoff_s=1.0))
    )
    run = live(of_sessions([0.0, 0.0], [7, 7]), [seconds()], options)
    assert reasons(run) == ["refused", ""]
    assert run.left_s[0] == 3.0
    assert run.sent_s.tolist() == [0.0, 3.0]
    assert statuses(run) == [Status.REJECTED, Status.COMPLETED]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100),
    sessions=st.integers(1, 20),
    thinking=st.sampled_from([0.0, 0.3]),
    timeout_s=st.sampled_from([0.2, 50.0]),
)
def test_no_turn_before_its_time_or_its_predecessor_s_answer(seed, sessions, thinking, timeout_s):
    trace = some(80, 20.0, seed, sessions)
    options = clients(wait_in_session=True, think_s=thinking, timeout_s={"default": timeout_s})
    run = live(trace, [a_pool(1)], options, seed=seed)
    assert (run.sent_s >= trace.arrival_s).all()
    ends = np.where(np.isnan(run.finish_s), run.left_s, run.finish_s)
    for session in range(sessions):
        turns = np.flatnonzero(trace.session == session)
        thought = [-thinking * np.log1p(-stream(seed, "think", int(turn)).random()) for turn in turns[:-1]]
        ready_s = np.maximum(trace.arrival_s[turns[1:]], ends[turns[:-1]] + thought)
        np.testing.assert_allclose(run.sent_s[turns[1:]], ready_s)


def test_every_policy_meets_clients_that_think_alike():
    trace = some(60, 20.0, sessions=6)
    for options in (clients(users=5, think_s=1.0), clients(wait_in_session=True, think_s=1.0)):
        runs = [live(trace, [a_pool(2, step_time=GPU_LIKE)], options, policy=p) for p in ("round_robin", "least_kv")]
        assert not np.array_equal(runs[0].replica, runs[1].replica)
        if options.clients.users is None:
            for run in runs:
                second = 6 + np.flatnonzero(run.finish_s[:6] > trace.arrival_s[6:12] - 1e-9)
                expected = [run.finish_s[i - 6] + think_s(1.0, int(i) - 6) for i in second]
                np.testing.assert_allclose(run.sent_s[second], np.maximum(expected, trace.arrival_s[second]))
