"""What clients wait outside the engine moves the times they see, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fleet.fleets import make_pool, replay
from fleet.living import live
from fleet.seconds import requests, seconds, statuses

from simroute.fleet.options import ClientOptions, FleetOptions, Retries
from simroute.hardware.calibration import RequestTerms
from simroute.results.run import Status
from simroute.workload.trace import Trace

NO_ANSWER = frozenset({"timeout"})


def test_a_client_s_patience_counts_what_passes_outside_the_engine():
    """Two tokens take 2 s and 0.5 s more outside: who waits 2.4 s hangs up then, with the answer on its way."""
    pool = replace(seconds(), request=RequestTerms(overhead_ms=500.0))
    for timeout_s, status in ((2.4, Status.CANCELLED), (2.5, Status.COMPLETED)):
        run = live(requests([0.0], 2), [pool], FleetOptions(clients=ClientOptions(timeout_s={"default": timeout_s})))
        assert statuses(run) == [status]
    assert run.finish_s[0] == 2.5
    late = live(
        requests([0.0, 4.0], 2),
        [pool],
        FleetOptions(
            clients=ClientOptions(timeout_s={"default": 2.4}, retries=Retries(most=1, backoff_s=0.1, on=NO_ANSWER))
        ),
    )
    assert statuses(late) == [Status.CANCELLED] * 2
    assert late.left_s.tolist() == [4.9, 8.9], "each asks once more"
    assert late.tries.tolist() == [2, 2]
    assert late.replicas[0].output_tokens == 8, "the engine had answered all the same"


def test_who_loses_interest_meanwhile_has_no_answer():
    """Everybody does; those whose time is up before the answer is there have none, however far it is on its way."""
    pool = replace(seconds(200), request=RequestTerms(overhead_ms=1000.0))
    options = FleetOptions(clients=ClientOptions(cancel_share=1.0, cancel_after_s=2.0))
    run = live(requests([0.0] * 200, 1), [pool], options)
    cancelled = run.status == Status.CANCELLED
    assert 1.5 < run.left_s[cancelled].max() <= 2.0, "some had been answered by their engine, at 1 s"
    np.testing.assert_array_equal(run.finish_s[~cancelled], 2.0)
    assert 0.25 < (~cancelled).mean() < 0.5, "exp(-2 / 2)"


def test_first_and_last_token_come_later_by_the_terms_of_the_pool():
    trace = Trace.build(arrival_s=[0.0, 0.5, 7.0], input_tokens=[8, 100, 20], output_tokens=[3, 5, 2])
    pool = make_pool()
    inside = replay(trace, [pool])
    outside = replay(trace, [replace(pool, request=RequestTerms(overhead_ms=30.0, per_input_token_us=500.0))])
    waits_s = [0.03 + 0.0005 * 8, 0.03 + 0.0005 * 100, 0.03 + 0.0005 * 20]
    np.testing.assert_allclose(outside.first_token_s - inside.first_token_s, waits_s)
    np.testing.assert_allclose(outside.finish_s - inside.finish_s, waits_s)
    assert outside.replicas[0].steps == inside.replicas[0].steps
    assert outside.itl.mean == inside.itl.mean
