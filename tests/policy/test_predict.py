"""Predicted latency: the formula worked by hand, term by term, and the laws it must keep."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from policy.stage import LinearSpeed, Seen, Stage, ask_for, variant

from simroute.policy.context import Targets
from simroute.policy.routing.predict import Forecasts, Prediction, PredictionOptions, predict


def seen(requests=0, tokens=0, queued_tokens=0, **of_variant):
    found = Seen(0, variant("only", **of_variant))
    found.load(requests, tokens, queued_tokens)
    return found


def test_an_idle_replica_prefills_and_decodes():
    assert predict(seen(), 500, 101) == pytest.approx(Prediction(0.5, 0.01, 0.5 + 100 * 0.01))


def test_prompts_ahead_are_computed_first_and_share_steps():
    # Two prompts of 750 tokens ahead: 1.5 s. While this answer decodes both are replaced: 1.5 s in 100 steps.
    assert predict(seen(2, 1500, 1500), 500, 100) == pytest.approx(Prediction(2.0, 0.025, 2.0 + 99 * 0.025))


def test_requests_that_decode_are_given_a_step_for_each_chunk():
    # Three of four prompts are past their first token: 10 ms for the step under way, as much for each 997 tokens ahead
    # of this prompt, and once more for its only chunk.
    assert predict(seen(4, 2000, 500), 500, 100).ttft_s == pytest.approx(0.5 + 0.5 + (1 + 500 / 997 + 1) * 0.01)
    assert predict(seen(4, 2000, 500), 1000, 100).ttft_s == pytest.approx(0.5 + 1.0 + (1 + 500 / 997 + 2) * 0.01)


def test_a_decode_step_is_of_as_many_requests_with_as_much_context_as_decode():
    speed = LinearSpeed(step_s=0.01, seq_s=0.001, context_token_s=1e-5)
    found = predict(seen(4, 2000, 500, speed=speed), 500, 100)
    # Now: 3 requests with 1,500 prompt tokens and 50 of an answer each. Later: 5 with 2,500 and 50 each, replaced.
    assert found.ttft_s == pytest.approx(1.0 + (2 + 500 / 997) * (0.01 + 0.003 + 1650e-5))
    assert found.tpot_s == pytest.approx(0.01 + 0.005 + 2750e-5 + 4 * 0.5 / 100)


def test_without_a_seat_it_waits_until_others_have_finished():
    # 6 requests for 4 seats: two answers must end. Four end in 100 steps of 10 ms and the prefill of those who follow.
    found = predict(seen(5, 500, seats=4), 100, 100)
    assert found.tpot_s == pytest.approx(0.01 + 3 * 0.1 / 100)
    assert found.ttft_s == pytest.approx(2 * (100 * 0.01 + 4 * 0.1) / 4 + 0.1 + 2 * 0.01)


def test_prompts_ahead_are_computed_while_it_waits_for_a_seat():
    # 6 requests of 1,000 tokens for 5 seats: 5 s of prompts, in which no answer ends; then one ends in 1.02 s.
    found = predict(seen(5, 5000, 5000, seats=5), 100, 10)
    assert found.tpot_s == pytest.approx(0.01 + 4 * 1.0 / 10)
    assert found.ttft_s == pytest.approx(5.0 + 0.1)


def test_seats_are_as_many_as_the_kv_cache_holds():
    # Ten requests of 100 tokens and half of 100 each need 1,500 tokens: 1,000 hold six of them.
    small, few = seen(9, 900, kv_tokens=1000), seen(9, 900, seats=6)
    assert predict(small, 100, 100) == predict(few, 100, 100)
    assert predict(small, 100, 100).ttft_s > predict(seen(9, 900, kv_tokens=2000), 100, 100).ttft_s


def test_attention_is_counted_for_each_prompt_not_for_the_queue_as_one():
    speed = LinearSpeed(token_s=0.0, token_squared_s=1e-6)
    # One prompt of 4,000 tokens ahead costs its 16 s; eight of 500 fill four steps of 1,000 tokens at 1 s each.
    assert predict(seen(1, 4000, 4000, speed=speed), 1, 1).ttft_s == pytest.approx(16.0, rel=1e-3)
    assert predict(seen(8, 4000, 4000, speed=speed), 1, 1).ttft_s == pytest.approx(4.0, rel=1e-3)


def test_an_external_endpoint_has_room_for_everyone():
    speed = LinearSpeed(token_s=0.0, step_s=0.02)
    assert predict(seen(900, 90_000, 9000, seats=4, speed=speed, external=True), 500, 101) == (0.0, 0.02, 2.0)


def test_nothing_is_predicted_of_a_variant_without_speed():
    assert predict(seen(3, 300, speed=None), 100, 100) == (inf, inf, inf)


counts = st.tuples(st.integers(0, 60), st.integers(1, 4000), st.floats(0, 1))


@example((9, 1588, 0.0), 1365, 2, 5000)  # a longer prompt leaves two seats in the cache where there were three
@given(counts, st.integers(1, 5000), st.integers(1, 500), st.sampled_from([0, 5000, 100_000]))
def test_more_ahead_never_makes_it_sooner(load, input_tokens, output_tokens, kv_tokens):
    requests, each, share = load
    tokens = requests * each
    queued = int(share * tokens)
    speed = LinearSpeed(seq_s=1e-4, context_token_s=1e-7)
    now = predict(seen(requests, tokens, queued, speed=speed, kv_tokens=kv_tokens), input_tokens, output_tokens)
    assert all(0 < value < inf for value in now)
    alone = predict(seen(speed=speed, kv_tokens=kv_tokens), input_tokens, output_tokens)
    assert now.ttft_s >= alone.ttft_s - 1e-9
    longer = predict(
        seen(requests, tokens, queued, speed=speed, kv_tokens=kv_tokens), input_tokens + 1000, output_tokens
    )
    assert longer.ttft_s > now.ttft_s
    assert now.e2e_s == pytest.approx(now.ttft_s + (output_tokens - 1) * now.tpot_s)


def test_answers_are_expected_by_class_else_by_default_else_of_256_tokens():
    stage = Stage((1, variant("only")))

    def e2e_s(request_class, **expected):
        forecasts = Forecasts(PredictionOptions(expected_output_tokens=expected), stage.context())
        return forecasts.of(ask_for(request_class, tokens=0))(stage.seen[0]).e2e_s

    assert e2e_s("chat") == pytest.approx(2.55)
    assert e2e_s("chat", default=11) == pytest.approx(0.1)
    assert e2e_s("chat", default=11, chat=21) == pytest.approx(0.2)


def test_the_share_used_is_of_the_tightest_target():
    targets = {"chat": Targets(ttft_s=1.0, tpot_s=0.1, e2e_s=10.0), "default": Targets(e2e_s=0.5), "batch": Targets()}
    stage = Stage((1, variant("only")), targets=targets)
    forecasts = Forecasts(PredictionOptions(expected_output_tokens={"default": 101}), stage.context())

    def used(request_class, tokens):
        return forecasts.used(ask_for(request_class, tokens=tokens))(stage.seen[0])

    assert used("chat", 500) == pytest.approx(0.5), "TTFT 0.5 of 1 s, TPOT 0.01 of 0.1 s, 1.5 of 10 s"
    assert used("chat", 10) == pytest.approx(0.101), "TTFT 0.01, TPOT 0.1, E2E 1.01 of 10 s"
    assert used("other", 500) == pytest.approx(3.0), "1.5 s of the default's 0.5 s"
    assert used("batch", 500) == 0.0
    assert [forecasts.wanted(name) for name in ("chat", "other", "batch")] == [True, True, False]


def test_counts_that_do_not_add_up_give_no_time_less_than_nothing():
    found = predict(seen(2, 100, 5000), 100, 100)
    assert found.ttft_s == pytest.approx(5.0 + 0.1), "nobody decodes"
