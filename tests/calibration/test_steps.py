"""From iterations to durations: start to start while the engine is busy, whatever the scheduling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from calibration.engine_steps import Engine, iteration, measured, meta

from simroute.calibration.runs import REQUEST_COLUMNS, Run, empty_table
from simroute.calibration.steps import outputs_s, steps_of
from simroute.errors import CalibrationError

PROMPT, DECODE = ([(0, 10)], []), ([], [11])


def run_of(*rows):
    """A run of one phase: rows of (schedule begins, schedule takes, service takes, batch), in ms."""
    table = pd.DataFrame(
        [
            iteration(0, (begin + sched) * 1e-3, service * 1e-3, *batch, sched_s=sched * 1e-3)
            for begin, sched, service, batch in rows
        ]
    )
    return Run(meta(), table, empty_table(REQUEST_COLUMNS))


def test_synchronous_steps_last_from_output_to_output():
    # Outputs at 12, 24 and 36 ms; the engine spends 1 ms on output and 1 ms on scheduling between its steps.
    run = run_of((0, 2, 10, PROMPT), (13, 1, 10, DECODE), (25, 1, 10, DECODE))
    np.testing.assert_allclose(outputs_s(run.iterations), [12e-3, 24e-3, 36e-3])
    steps = steps_of([run])
    np.testing.assert_allclose(steps.between_s, 2e-3)  # of the first as is usual: it found the engine idle
    np.testing.assert_allclose(steps.duration_s, 12e-3)


def test_asynchronous_steps_hide_the_scheduling():
    # Step 2 is scheduled at 3 ms, while step 1 runs until 11: its 10 ms are counted from there.
    run = run_of((0, 1, 10, PROMPT), (3, 1, 10, DECODE), (12, 1, 10, DECODE))
    np.testing.assert_allclose(outputs_s(run.iterations), [11e-3, 21e-3, 31e-3])
    np.testing.assert_allclose(steps_of([run]).duration_s, 10e-3)


def test_a_scheduler_slower_than_the_model_is_not_hidden():
    # The output before was at 11 ms, but this step was scheduled only at 15.
    run = run_of((0, 1, 10, PROMPT), (12, 3, 10, DECODE), (22, 7, 10, DECODE))
    np.testing.assert_allclose(steps_of([run]).duration_s[1:], [14e-3, 14e-3])


def test_idle_time_is_no_step():
    busy = [(12 * i, 1, 10, DECODE) for i in range(10)]
    run = run_of(*busy, (500, 1, 10, PROMPT), (512, 1, 10, DECODE))
    np.testing.assert_allclose(steps_of([run]).duration_s, 12e-3)


def test_a_prompt_that_joins_at_once_is_no_idle_time():
    run = run_of((0, 1, 10, PROMPT), (12, 1, 10, PROMPT), (24, 1, 10, DECODE), (36, 1, 10, DECODE))
    np.testing.assert_allclose(steps_of([run]).duration_s, 12e-3)


def test_loads_and_sweeps_are_groups_of_their_own():
    steps = steps_of([measured(Engine(), load_steps=50, name="a"), measured(Engine(), load_steps=50, name="b")])
    assert [(g.run, g.phase, g.is_load) for g in steps.groups] == [
        ("a", "sweep", False),
        ("a", "load-30", True),
        ("b", "sweep", False),
        ("b", "load-30", True),
    ]
    assert steps.load.sum() == 100
    assert np.bincount(steps.group).tolist() == [len(steps) // 2 - 50, 50] * 2


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_a_few_durations_that_cannot_be_are_counted_and_left_out(wrong):
    run = measured(Engine(), load_steps=100)
    run.iterations.loc[[5, 60], "service_s"] = wrong
    steps = steps_of([run])
    assert steps.unusable == 2
    assert len(steps) == len(run.iterations) - 2
    assert (steps.duration_s > 0).all()


def test_many_durations_that_cannot_be_are_refused():
    run = measured(Engine(), load_steps=0)
    run.iterations.loc[::10, "service_s"] = -1.0
    with pytest.raises(CalibrationError, match=r"\d+ of \d+ iterations have no duration above 0: at most 5%"):
        steps_of([run])
