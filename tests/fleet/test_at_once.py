"""Things that happen at once, or overlap: outages of many places, faults of one kind twice, clients that stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fleet.living import a_pool, live, some

from simroute.fleet.options import (
    ClientOptions,
    Crashes,
    Failures,
    FleetOptions,
    Outage,
    RouterOptions,
    RouterRestart,
    Straggler,
)
from simroute.results.run import Status


def test_what_an_outage_loses_is_not_sent_to_what_it_also_takes():
    """Seven of eight replicas are in the zone: each lost request is sent once more, to the eighth."""
    pool = replace(a_pool(8), zones=("east",) * 7 + ("west",))
    options = FleetOptions(
        failures=Failures(outages=[Outage(1.0, 60.0, zone="east")]), router=RouterOptions(most_resends=1)
    )
    run = live(some(120, 60.0), [pool], options)
    assert (run.status == Status.COMPLETED).all()
    assert run.attempts is not None
    assert run.attempts.max() == 2


def test_a_short_restart_does_not_end_a_long_one():
    restarts = [RouterRestart(1.0, 10.0), RouterRestart(3.0, 1.0)]
    run = live(some(200, 20.0), [a_pool()], FleetOptions(failures=Failures(router=restarts)))
    meanwhile = (run.arrival_s > 1.0) & (run.arrival_s < 11.0)
    assert meanwhile.sum() > 50
    assert (run.status[meanwhile] == Status.FAILED).all()


def test_a_replica_is_slow_until_the_last_of_its_troubles_ends():
    twice = [Straggler(1.0, 4.0, "pool", 0, 3.0), Straggler(2.0, 8.0, "pool", 0, 3.0)]
    once = [Straggler(1.0, 9.0, "pool", 0, 3.0)]
    runs = [live(some(100, 8.0), [a_pool(1)], FleetOptions(failures=Failures(stragglers=s))) for s in (twice, once)]
    late = (runs[0].arrival_s > 5.5) & (runs[0].arrival_s < 9.0)
    np.testing.assert_allclose(*((run.finish_s - run.first_token_s)[late].mean() for run in runs), rtol=0.2)


def test_two_kinds_of_crashes_crash_more():
    def crashes(*mtbf_s: float) -> int:
        failures = Failures(crashes=[Crashes(mean) for mean in mtbf_s])
        run = live(some(600, 10.0), [a_pool(3)], FleetOptions(failures=failures))
        return sum(totals.crashes for totals in run.replicas)

    assert crashes(8.0, 8.0) > 1.3 * crashes(8.0)


def test_the_run_ends_with_the_last_answer_and_not_with_the_last_thought():
    for clients in (ClientOptions(users=3, think_s=500.0), ClientOptions(wait_in_session=True, think_s=500.0)):
        run = live(some(6, 5.0, sessions=6), [a_pool()], FleetOptions(clients=clients))
        assert run.end_s == np.nanmax(run.finish_s)
