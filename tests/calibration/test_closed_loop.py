"""Closed loops against schedules worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from simroute.calibration.closed_loop import closed_loop
from simroute.engine.config import EngineConfig
from simroute.hardware.calibration import RequestTerms
from simroute.hardware.steptime import Batch

ENGINE = EngineConfig(num_gpu_blocks=1000, max_model_len=1024, enable_prefix_caching=False, async_scheduling=False)


class SecondASteps:
    """Every step takes one second."""

    estimated, basis = False, "measured"

    def duration_s(self, batch: Batch) -> float:
        return 1.0

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        return 1.0, 0.0

    def drawn(self, rng):
        return self


def test_one_client_sends_when_its_answer_has_come():
    loop = closed_loop(ENGINE, SecondASteps(), [(10, 3), (10, 2)], 1)
    assert loop.sent_s.tolist() == [0, 3]
    assert loop.first_token_s.tolist() == [1, 4]
    assert loop.finish_s.tolist() == [3, 5]
    assert loop.ttft_s.tolist() == [1, 1]
    assert loop.tpot_s.tolist() == [1, 1]
    assert loop.makespan_s == 5


def test_never_more_in_flight_than_clients_and_all_are_served():
    rng = np.random.default_rng(1)
    requests = list(zip(rng.integers(1, 200, 60).tolist(), rng.integers(1, 30, 60).tolist(), strict=True))
    loop = closed_loop(ENGINE, SecondASteps(), requests, 7)
    assert not np.isnan(loop.finish_s).any()
    moments = np.sort(loop.sent_s)
    in_flight = [(int((loop.sent_s <= at).sum()) - int((loop.finish_s <= at).sum())) for at in moments]
    assert max(in_flight) == 7
    assert min(in_flight[:53]) == 7  # as long as requests are left, every client has one


def test_more_clients_than_requests():
    assert closed_loop(ENGINE, SecondASteps(), [(10, 1)], 8).finish_s.tolist() == [1]


def test_an_answer_of_one_token_has_no_time_between_tokens():
    assert np.isnan(closed_loop(ENGINE, SecondASteps(), [(10, 1)], 1).tpot_s).all()


def test_the_way_to_the_engine_counts_for_the_client():
    terms = RequestTerms(overhead_ms=200, per_input_token_us=10_000)
    loop = closed_loop(ENGINE, SecondASteps(), [(10, 2), (10, 2)], 1, terms)
    assert loop.ttft_s == pytest.approx([1.3, 1.3])
    assert loop.sent_s == pytest.approx([0, 2.3])


def test_preemptions_are_counted():
    small = EngineConfig(num_gpu_blocks=9, max_model_len=128, enable_prefix_caching=False, async_scheduling=False)
    loop = closed_loop(small, SecondASteps(), [(60, 60)] * 4, 2)
    assert loop.preemptions > 0
    assert not np.isnan(loop.finish_s).any()
