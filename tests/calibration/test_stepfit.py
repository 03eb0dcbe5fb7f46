"""The fit finds the terms that made the steps: of engines written down in `engine_steps`, with noise and faults."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from calibration.engine_steps import DEFAULT_GRAPHS, Engine, load, measured, sweep

from simroute.calibration.runs import REQUEST_COLUMNS
from simroute.calibration.stepfit import StepFit, fit_steps
from simroute.calibration.steps import outputs_s, steps_of
from simroute.hardware.steptime import Batch


@cache
def fitted(**engine) -> StepFit:
    load_steps = engine.pop("load_steps", 800)
    return fit_steps(steps_of([measured(Engine(**engine), load_steps=load_steps)]), [DEFAULT_GRAPHS])


def predicted_s(found: StepFit, chunks, contexts) -> float:
    """The formula of `StepTerms`, written out once more."""
    terms = found.terms
    knots, values = list(terms.gemm_ms), list(terms.gemm_ms.values())
    tokens = sum(n for _, n in chunks) + len(contexts)
    if not chunks:
        tokens = next((size for size in terms.graph_sizes if size >= tokens), tokens)
    pairs = sum(n * start + n * (n + 1) // 2 for start, n in chunks)
    per_seq = terms.prefill_seq_us * len(chunks) + terms.decode_seq_us * len(contexts)
    per_seq += terms.sampled_seq_us * (len(chunks) + len(contexts))
    attention = terms.prefill_pair_ns * pairs + terms.decode_context_token_ns * sum(contexts)
    return (terms.launch_ms + np.interp(tokens, knots, values)) * 1e-3 + per_seq * 1e-6 + attention * 1e-9


def test_the_terms_are_found_again():
    terms = fitted().terms
    assert terms.prefill_pair_ns == pytest.approx(2.0, rel=0.15)
    assert terms.decode_context_token_ns == pytest.approx(60.0, rel=0.03)
    assert terms.decode_seq_us + terms.sampled_seq_us == pytest.approx(20.0, rel=0.15)
    assert list(terms.gemm_ms)[-1] == 2048
    assert terms.gemm_ms[2048] == pytest.approx(40.0, rel=0.02)
    assert len(terms.gemm_ms) <= 8
    assert terms.launch_ms == 0.0  # nothing was between the steps
    assert terms.graph_sizes == ()


@pytest.mark.parametrize("engine", [{}, {"graphs": DEFAULT_GRAPHS}, {"between_s": 1e-3}], ids=str)
def test_predictions_are_near_the_truth_everywhere(engine):
    """Far nearer than the noise of a single step: on batches that were measured, and on some that were not."""
    engine = {name: value if name != "graphs" else tuple(value) for name, value in engine.items()}
    found, truth = fitted(**engine), Engine(**engine)
    batches = [*sweep()[::7], *load(60, seed=9), ([(100, 300)], [200] * 20), ([], [700] * 80)]
    wanted = np.array([truth.step_s(*batch) + truth.between_s for batch in batches])
    ratio = np.array([predicted_s(found, *batch) for batch in batches]) / wanted
    assert np.abs(ratio - 1).max() < 0.05
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.015


def test_time_between_steps_is_the_launch():
    assert fitted(between_s=1e-3).terms.launch_ms == pytest.approx(1.0, rel=0.02)
    assert sum((fitted(between_s=1e-3).terms.launch_ms, fitted(between_s=1e-3).terms.gemm_ms[1])) == pytest.approx(
        5.0, rel=0.02
    )


def test_padding_is_kept_where_it_shows():
    """A GEMM that climbs steeply between graph sizes: 33 requests cost what 40 do."""
    steep = ((1, 4e-3), (16, 4.2e-3), (256, 30e-3), (2048, 200e-3))
    assert fitted(gemm=steep, graphs=DEFAULT_GRAPHS).terms.graph_sizes == DEFAULT_GRAPHS
    assert fitted(gemm=steep).terms.graph_sizes == ()


@pytest.mark.parametrize("sweep_s", [-0.5e-3, 1e-3])
def test_the_terms_are_those_under_load(sweep_s):
    """Steps of the sweep last a time less or more than under load: the terms are of load, the shape that of both."""
    found = fitted(sweep_s=sweep_s)
    sweep = ~found.steps.load
    shift_s = np.median((found.steps.duration_s - found.as_load_s)[sweep])
    assert shift_s == pytest.approx(sweep_s, rel=0.15)
    assert (found.as_load_s == found.steps.duration_s)[found.steps.load].all()
    assert found.terms.gemm_ms[2048] == pytest.approx(40.0, rel=0.03)  # only the sweep went there
    assert found.terms.decode_context_token_ns == pytest.approx(60.0, rel=0.04)


def test_what_arrivals_cost_is_charged_to_their_prefill():
    """A step during which a request arrives takes 3 ms more: the server reads it on the engine's cores."""
    run = measured(Engine())
    steps = run.iterations
    joined = np.flatnonzero((steps["phase"] == 1) & (steps["prefill_seqs"] == 1))
    steps.loc[joined - 1, "service_s"] += 3e-3
    arrival_s = outputs_s(steps)[joined - 1] - 1e-3
    requests = pd.DataFrame({name: [None] * len(joined) for name in REQUEST_COLUMNS}).assign(arrival_s=arrival_s)
    found = fit_steps(steps_of([replace(run, requests=requests)]))
    assert found.terms.prefill_seq_us == pytest.approx(3050, rel=0.1)
    assert found.terms.gemm_ms[2048] == pytest.approx(40.0, rel=0.03)


def test_a_sweep_alone_is_fitted_as_it_is():
    found = fitted(sweep_s=2e-3, load_steps=0)
    assert (found.as_load_s == found.steps.duration_s).all()
    assert found.terms.gemm_ms[2048] == pytest.approx(42.0, rel=0.03)


def test_sums_of_predictions_under_load_are_those_measured():
    """Noise is skewed (exp of a normal): the fit must be of the mean, for steps add up."""
    found = fitted(noise=0.2)
    members = found.steps.load
    terms = found.terms
    batches = [Batch(*(int(v[i]) for v in found.steps.inputs.values())) for i in np.flatnonzero(members)]
    knots, values = list(terms.gemm_ms), list(terms.gemm_ms.values())
    total_s = sum(
        (terms.launch_ms + np.interp(b.prefill_tokens + b.decode_seqs, knots, values)) * 1e-3
        + (b.prefill_seqs * terms.prefill_seq_us + b.decode_seqs * terms.decode_seq_us) * 1e-6
        + b.sampled_seqs * terms.sampled_seq_us * 1e-6
        + (b.prefill_pairs * terms.prefill_pair_ns + b.decode_context_tokens * terms.decode_context_token_ns) * 1e-9
        for b in batches
    )
    assert total_s == pytest.approx(found.steps.duration_s[members].sum(), rel=1e-6)


def test_stalls_do_not_bend_the_shape():
    run = measured(Engine())
    stalled = [40, 700, 1100]
    run.iterations.loc[stalled, "service_s"] *= 30
    found = fit_steps(steps_of([run]))
    assert set(np.flatnonzero(found.stalls)) == set(stalled)
    assert found.terms.gemm_ms[2048] == pytest.approx(40.0, rel=0.02)


def test_a_tenth_of_slow_steps_does_not_bend_the_curve():
    run = measured(Engine())
    slow = np.random.default_rng(1).random(len(run.iterations)) < 0.1
    run.iterations.loc[slow, "service_s"] *= 1.5
    found = fit_steps(steps_of([run]))
    # The level rises by the mean of what the slow steps add; the ratio of the terms stays.
    ratio = found.terms.gemm_ms[2048] / found.terms.decode_context_token_ns
    assert ratio == pytest.approx(40.0 / 60.0, rel=0.05)


def test_no_term_is_negative_and_gemm_never_falls():
    odd = fitted(gemm=((1, 5e-3), (64, 4e-3), (2048, 20e-3)), decode_seq_s=0.0, prefill_seq_s=0.0)
    assert min(odd.terms.values().values()) >= 0
    values = list(odd.terms.gemm_ms.values())
    assert values == sorted(values)


def test_unseen_errors_are_those_of_the_noise():
    errors = np.abs(fitted(noise=0.05).errors)
    # |N(0, 0.05)|: median 0.6745 sd, 90th percentile 1.645 sd
    assert np.median(errors) == pytest.approx(0.6745 * 0.05, rel=0.12)
    assert np.quantile(errors, 0.9) == pytest.approx(1.645 * 0.05, rel=0.12)


def test_standard_errors_are_the_spread_over_repeated_measurements():
    fits = [fit_steps(steps_of([measured(Engine(), load_steps=400, seed=seed)])) for seed in range(12)]
    name = "decode_context_token_ns"
    values = np.array([found.terms.values()[name] for found in fits])
    stated = []
    for found in fits:
        i = found.covariance.parameters.index(name)
        stated.append(found.covariance.relative[i][i] ** 0.5)
    assert 0.5 < np.mean(stated) / (values.std(ddof=1) / 60.0) < 2.0
    assert values.mean() == pytest.approx(60.0, rel=0.02)


def test_a_machine_whose_speed_moves_is_known_by_it():
    """The second half of the load runs 10 % slower: two levels, +-5 % about their mean."""
    run = measured(Engine())
    steps = run.iterations
    under_load = np.flatnonzero(steps["phase"] == 1)
    steady = fit_steps(steps_of([run])).drift_sd
    steps.loc[under_load[len(under_load) // 2 :], "service_s"] *= 1.1
    assert steady < 0.01
    assert fit_steps(steps_of([run])).drift_sd == pytest.approx(np.log(1.1) / 2, rel=0.2)
