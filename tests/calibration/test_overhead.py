"""Time outside the engine: from requests and the steps that served them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from calibration.engine_steps import iteration, meta

from simroute.calibration.overhead import fit_overhead
from simroute.calibration.runs import REQUEST_COLUMNS, Phase, Run

IN_S, PER_TOKEN_S, OUT_S, STEP_S = 4e-3, 3e-6, 2e-3, 20e-3


def lonely_requests(
    n: int, *, every_s: float = 1.0, noise: float = 0.0, seed: int = 0, moods: int = 1, per_token_s: float = PER_TOKEN_S
) -> Run:
    """Requests one at a time: in (4 ms and 3 us a token), one step for the prompt, two tokens, out (2 ms).

    The noise of the way in is the same for `moods` requests in a row.
    """
    rng = np.random.default_rng(seed)
    factors = np.repeat(np.exp(rng.normal(0, noise, n)), moods)
    rows, requests = [], []
    for i in range(n):
        sent_s, prompt = i * every_s, int(rng.integers(50, 2000))
        begun_s = sent_s + (IN_S + per_token_s * prompt) * float(factors[i])
        rows.append(iteration(0, begun_s, STEP_S, [(0, prompt)], []))
        rows.append(iteration(0, begun_s + STEP_S, STEP_S, [], [prompt + 1]))
        first_s, last_s = begun_s + STEP_S + OUT_S, begun_s + 2 * STEP_S + OUT_S
        requests.append((0, f"r{i}", sent_s, prompt, 2, first_s, last_s, [first_s, last_s], True, None))
    return Run(meta(), pd.DataFrame(rows), pd.DataFrame(requests, columns=list(REQUEST_COLUMNS)))


def test_the_terms_are_found_again():
    found = fit_overhead([lonely_requests(40)])
    assert found is not None
    assert found.terms.overhead_ms == pytest.approx((IN_S + OUT_S) * 1e3)
    assert found.terms.per_input_token_us == pytest.approx(PER_TOKEN_S * 1e6)
    assert (found.inbound, found.outbound) == (40, 40)


def test_noise_is_averaged_out():
    found = fit_overhead([lonely_requests(300, noise=0.2)])
    assert found is not None
    assert found.terms.overhead_ms == pytest.approx((IN_S + OUT_S) * 1e3, rel=0.1)
    assert found.terms.per_input_token_us == pytest.approx(PER_TOKEN_S * 1e6, rel=0.2)


def test_the_error_is_the_spread_over_repeated_measurements():
    fits = [fit_overhead([lonely_requests(200, noise=0.2, seed=seed)]).terms for seed in range(30)]
    for name in ("overhead", "per_input_token"):
        unit = "ms" if name == "overhead" else "us"
        spread = np.std([getattr(terms, f"{name}_{unit}") for terms in fits], ddof=1)
        stated = np.mean([getattr(terms, f"{name}_error_{unit}") for terms in fits])
        assert 0.6 < stated / spread < 1.6
    together = np.corrcoef([[terms.overhead_ms, terms.per_input_token_us] for terms in fits], rowvar=False)[0, 1]
    assert np.mean([terms.error_correlation for terms in fits]) == pytest.approx(together, abs=0.25)
    assert together < -0.5  # what the one term takes, the other lacks


def test_moods_of_the_machine_count_once_not_once_a_request():
    """Every block of ten requests waits by its own factor: 200 requests say no more than 20."""
    errors_ms = []
    for moods in (1, 10):
        terms = fit_overhead([lonely_requests(200, noise=0.3, moods=moods)]).terms
        one, other = terms.overhead_error_ms, terms.per_input_token_error_us  # of 1,000 tokens, in ms
        errors_ms.append(np.sqrt(one**2 + other**2 + 2 * terms.error_correlation * one * other))
    assert 2.0 < errors_ms[1] / errors_ms[0] < 5.0  # about the root of ten


def test_a_term_that_is_not_there_is_known():
    run = lonely_requests(60, noise=0.1, per_token_s=0.0)
    late = 0.02 * (2000 - run.requests["input_tokens"]) / 2000  # longer prompts are faster, which no line may be
    run.iterations["t_s"] += np.repeat(late.to_numpy(), 2)
    terms = fit_overhead([run]).terms
    assert (terms.per_input_token_us, terms.per_input_token_error_us, terms.error_correlation) == (0.0, None, None)
    assert terms.overhead_error_ms > 0


def test_requests_that_wait_for_others_say_nothing_of_the_way_in():
    """Sent every 30 ms, a request finds the one before still decoding: its wait is the engine's."""
    assert fit_overhead([lonely_requests(40, every_s=0.03)]) is None


def test_too_few_requests_say_nothing():
    assert fit_overhead([lonely_requests(5)]) is None
    run = lonely_requests(40)
    assert fit_overhead([Run(run.meta, run.iterations, run.requests.head(0))]) is None


def test_failed_requests_are_left_out():
    run = lonely_requests(40)
    run.requests.loc[:9, ["ok", "first_token_s"]] = [False, np.nan]
    found = fit_overhead([run])
    assert found is not None
    assert (found.inbound, found.outbound) == (30, 30)


def test_requests_of_load_count_where_there_are_enough():
    """In the sweep the way in takes 10 ms more: its requests come in bursts."""
    sweep, load = lonely_requests(40), lonely_requests(40)
    offset_s = 1000.0
    sweep.requests["arrival_s"] -= 10e-3
    load.iterations["t_s"] += offset_s
    load.requests[["arrival_s", "first_token_s", "finish_s"]] += offset_s
    load.iterations["phase"] = load.requests["phase"] = 1
    phases = (
        Phase(name="sweep", kind="sweep", start_s=0, end_s=offset_s),
        Phase(name="load-0.3", kind="load", start_s=offset_s, end_s=2 * offset_s),
    )
    both = Run(
        meta(phases=phases),
        pd.concat([sweep.iterations, load.iterations], ignore_index=True),
        pd.concat([sweep.requests, load.requests], ignore_index=True),
    )
    found = fit_overhead([both])
    assert found is not None
    assert (found.inbound, found.outbound) == (40, 40)
    assert found.terms.overhead_ms == pytest.approx((IN_S + OUT_S) * 1e3)
