"""What clients wait outside the engine moves the times they see, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fleet.fleets import make_pool, replay

from simroute.hardware.calibration import RequestTerms
from simroute.workload.trace import Trace


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
