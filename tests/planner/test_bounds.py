"""Bounds never rule out a fleet that the simulator accepts, and do rule out what cannot work."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planner.spaces import evaluator, spanned, tiny

from simroute.hardware.steptime import Batch
from simroute.planner.fleets.bounds import Bounds, _rest
from simroute.planner.fleets.candidates import Fleet, Space
from simroute.planner.fleets.evaluate import Candidate
from simroute.planner.fleets.work import RESOURCES, costs_of, load_of


def fleets_near_the_edge(space: Space, bounds: Bounds) -> list[Fleet]:
    """For each option and pair the largest fleets that a bound rules out: the ones nearest to working."""
    lone = []
    for option, found in enumerate(space.options):
        refused = [n for n in range(1, found.replicas.max + 1) if bounds.refusal(((option, n),)) is not None]
        lone += [((option, max(refused)),)] if refused else []
    pairs = []
    for first in range(len(space.options)):
        for second in range(first + 1, len(space.options)):
            refused_pairs = [
                ((first, n), (second, m)) for n in (1, 2) for m in (1, 2) if bounds.refusal(((first, n), (second, m)))
            ]
            pairs += refused_pairs[-1:]
    return [*lone, *pairs]


@given(
    requests=st.integers(20, 90),
    per_s=st.sampled_from([2.0, 15.0, 60.0, 300.0]),
    seed=st.integers(0, 1000),
    ttft_s=st.sampled_from([0.05, 0.2, 0.6, 2.0]),
    tpot_s=st.sampled_from([None, 0.012, 0.03, 0.08]),
    e2e_s=st.sampled_from([None, 1.0, 4.0]),
    attainment=st.sampled_from([0.5, 0.9, 0.99]),
    p99=st.booleans(),
    losing=st.integers(0, 1),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_bound_rules_out_the_simulator_refuses_too(
    requests: int,
    per_s: float,
    seed: int,
    ttft_s: float,
    tpot_s: float | None,
    e2e_s: float | None,
    attainment: float,
    p99: bool,
    losing: int,
):
    limits = {k: v for k, v in (("ttft_s", ttft_s), ("tpot_s", tpot_s), ("e2e_s", e2e_s)) if v is not None}
    with tempfile.TemporaryDirectory() as name:
        data = tiny(Path(name), requests=requests, per_s=per_s, seed=seed)
        data["classes"] = {"default": {"p99" if p99 else "slo": limits, "attainment": attainment}}
        data["availability"] = {"lose_replicas": losing}
        data["fleets"] = {"most_variants": 2}
        space = spanned(Path(name), data)
        bounds = Bounds(space)
        fleets = fleets_near_the_edge(space, bounds)
        verdicts = evaluator(space).ask([Candidate(fleet, 0) for fleet in fleets])
    accepted = [(v.candidate, bounds.refusal(v.candidate.fleet)) for v in verdicts if v is not None and v.meets]
    assert accepted == []


def test_the_bounds_bite(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=400, per_s=40.0))
    bounds = Bounds(space)
    assert max(bounds.least(option) for option in range(len(space.options))) >= 3
    assert bounds.refusal(((0, 1),)) == "throughput"


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ({"default": {"slo": {"tpot_s": 0.001}}}, "latency"),
        ({"default": {"slo": {"ttft_s": 0.001}}}, "latency"),
        ({"default": {"slo": {"ttft_s": 9.0}, "quality_floor": 0.999}}, "quality"),
    ],
)
def test_variants_that_can_never_do(tmp_path: Path, classes: dict[str, Any], reason: str):
    space = spanned(tmp_path, tiny(tmp_path) | {"classes": classes})
    bounds = Bounds(space)
    assert {bounds.variants_refused((option,)) for option in range(len(space.options))} == {reason}


def test_prompts_that_no_engine_takes(tmp_path: Path):
    data = tiny(tmp_path)
    data["candidates"][0]["engine"] = {"max_model_len": 600}
    bounds = Bounds(spanned(tmp_path, data))
    assert bounds.variants_refused((0,)) == "context"


def test_a_fleet_that_a_loss_leaves_empty_is_refused(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path) | {"availability": {"lose_replicas": 2}})
    assert Bounds(space).refusal(((0, 2),)) == "availability"


@given(st.integers(1, 300), st.integers(0, 40), st.integers(0, 30_000), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_no_step_is_cheaper_than_its_parts(tokens: int, decode: int, context: int, extra: int):
    with tempfile.TemporaryDirectory() as name:
        pool = spanned(Path(name), tiny(Path(name), requests=5)).built.pools[0]
    unit = costs_of(pool).unit_s
    context += decode
    pairs = tokens * (tokens + 1) // 2
    sampled = decode + min(extra, 1)
    step_s = pool.step_time.duration_s(Batch(1, tokens, pairs, decode, context, sampled))
    assert step_s >= unit[0] * (tokens + decode) + unit[1] * pairs + unit[2] * context + unit[3] * sampled


def test_the_work_of_a_request_by_hand(tmp_path: Path):
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,4,3\n1,5000,1\n")
    data = tiny(tmp_path)
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,4,3\n1,5000,1\n")
    load = load_of(spanned(tmp_path, data).built.trace, [4096], caching=True)
    assert RESOURCES == ("tokens", "pairs", "context", "sampled")
    assert load.prefill[0].tolist() == [4, 10, 0, 1]  # 4 tokens, 1 + 2 + 3 + 4 pairs, the first row
    assert load.decode[0].tolist() == [2, 0, 5 + 6, 2]  # two steps at contexts of 5 and 6
    assert load.rejected.tolist() == [False, True]
    assert not load.prefill[1].any()


def test_what_the_second_must_do_beside_the_first():
    first, second = np.array([1.0, 2.0, np.inf]), np.array([4.0, 2.0, 5.0])
    rest = _rest(first, second, np.array([0.0, 1.0, 2.0, 3.0, 9.0]))
    assert rest == pytest.approx([11.0, 7.0, 6.0, 5.0, 5.0], rel=1e-5)  # the first item saves four seconds for one


def test_no_bound_on_tpot_where_answers_come_in_one_piece(tmp_path: Path):
    data = tiny(tmp_path, requests=30, per_s=1.0)
    data["classes"] = {"default": {"slo": {"ttft_s": 30.0, "tpot_s": 0.012}}}
    data["candidates"][0] |= {"gpu": "L4", "quantization": "bf16"}
    fleet = ((0, 2),)
    assert Bounds(spanned(tmp_path, data)).refusal(fleet) == "latency"
    for cascade in ("cascade", {"name": "two_level", "options": {"variant": "cascade"}}):
        space = spanned(tmp_path, data | {"policies": ["least_requests", cascade]})
        plain, whole = evaluator(space).ask([Candidate(fleet, policy) for policy in (0, 1)])
        assert plain is not None
        assert whole is not None
        assert (plain.meets, whole.meets) == (False, True), "a cascade's answers have no TPOT"
        assert Bounds(space).refusal(fleet) is None
