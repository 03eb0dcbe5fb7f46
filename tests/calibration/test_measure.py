"""A whole measurement of a fake vLLM, with the real plug-in and client: complete, gone on with, and failing well."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pandas as pd
import pytest
from calibration.fakevllm import FakeVllm, served

from simroute.calibration.measure.client import Answer
from simroute.calibration.measure.describe import Names
from simroute.calibration.measure.load import Lengths
from simroute.calibration.measure.resume import went_well
from simroute.calibration.measure.session import Plan, Target, measure
from simroute.calibration.runs import CUT, META, read_run
from simroute.errors import CalibrationError

PLAN = Plan(loads=(0.5,), budget_s=0.5, duration_s=0.2, lengths=Lengths(6, 3, max_input=40, max_output=8))
PHASES = ["sweep-prefill", "sweep-decode", "sweep-mixed", "capacity", "load-0.5"]
NUMBERS = itertools.count()


class Measured:
    """One call of measure against a fake of its own; `fault` begins with the phase `failing`."""

    def __init__(self, folder, plan=PLAN, failing="", fault=None, names=Names(gpu="cpu"), traced=True, **target):  # noqa: B008
        # A name of its own: an engine's process adds its id, but all these engines live in one.
        steps = folder / f"steps{next(NUMBERS)}"
        self.fake = FakeVllm(str(steps) if traced else None, None if failing else fault)
        self.told = []

        def progress(phase, done):
            self.told.append((phase, done))
            if phase == failing and done < 1:
                self.fake.fault = fault

        with served(self.fake) as url:
            target = Target(url=url, trace_steps=steps if traced else None, **target)
            self.run = measure(target, plan, folder / "run", names, progress)


def rows(table: pd.DataFrame, number: int) -> pd.DataFrame:
    return table[table["phase"] == number]


def test_a_measurement_holds_every_phase_and_loses_no_token(tmp_path):
    measured = Measured(tmp_path)
    run = measured.run
    assert [phase.name for phase in run.meta.phases] == PHASES
    assert [phase.kind for phase in run.meta.phases] == ["sweep"] * 3 + ["capacity", "load"]
    assert all(phase.ok for phase in run.meta.phases)
    assert all(b.start_s >= a.end_s > a.start_s for a, b in itertools.pairwise(run.meta.phases))
    for number, phase in enumerate(run.meta.phases):
        requests, iterations = rows(run.requests, number), rows(run.iterations, number)
        if phase.kind != "capacity":  # whose end cuts requests off
            assert requests["ok"].all()
            assert iterations["sampled_seqs"].sum() == requests["output_tokens"].sum()
            assert iterations["prefill_tokens"].sum() == requests["input_tokens"].sum()  # the fake caches nothing
            assert (requests["chunk_s"].map(len) == requests["output_tokens"]).all()
        assert iterations["t_s"].between(phase.start_s, phase.end_s).all()
        assert requests["arrival_s"].between(phase.start_s, phase.end_s).all()
    assert measured.told[0] == ("start", 1.0)
    assert [name for name, done in measured.told if done == 1.0] == ["start", *PHASES]


def test_the_directory_holds_what_measure_gives_and_the_engine_told(tmp_path):
    run = Measured(tmp_path).run
    back = read_run(tmp_path / "run")
    assert back.meta == run.meta
    assert len(back.iterations) == len(run.iterations) > 0
    meta = run.meta
    assert (meta.model, meta.gpu, meta.scheme, meta.num_gpu_blocks, meta.block_size) == ("fake", "cpu", "bf16", 65, 16)
    assert (meta.max_num_seqs, meta.max_num_batched_tokens, meta.max_model_len) == (4, 64, 256)
    assert meta.capacity_rps is not None
    load = meta.phases[-1]
    assert (load.fraction, load.offered_rps) == (0.5, pytest.approx(0.5 * meta.capacity_rps, rel=1e-3))
    assert set(rows(run.requests, 0)["output_tokens"]) == {1}
    assert rows(run.requests, 1)["output_tokens"].max() > 1


def test_what_is_measured_is_not_measured_again(tmp_path):
    whole, again = Measured(tmp_path), Measured(tmp_path)
    assert again.run.meta == whole.run.meta
    assert (again.fake.received, again.told) == ([], [])


@pytest.mark.parametrize("fault", ["500", "cut", "refuse"])
@pytest.mark.parametrize("failing", PHASES[1:])
def test_a_server_that_fails_costs_the_phase_it_fails_in(tmp_path, failing, fault):
    plan = replace(PLAN, duration_s=1.0) if failing == "load-0.5" else PLAN  # long enough for some to fail
    said = "HTTP 500: out of luck" if fault == "500" else "the server closed the connection"
    with pytest.raises(CalibrationError, match=said) as caught:
        Measured(tmp_path, plan, failing, fault)
    before = PHASES[: PHASES.index(failing)]
    assert str(caught.value).endswith(
        f"{', '.join(before)} kept in {tmp_path / 'run'}: the same command goes on from there"
    )
    assert "\n" not in str(caught.value)
    kept = read_run(tmp_path / "run")
    assert [phase.name for phase in kept.meta.phases] == before
    run = Measured(tmp_path, plan).run
    assert [phase.name for phase in run.meta.phases] == PHASES
    assert run.meta.phases[: len(before)] == kept.meta.phases
    assert run.meta.phases[len(before)].start_s > kept.meta.phases[-1].end_s
    for number in range(len(before)):
        pd.testing.assert_frame_equal(rows(run.iterations, number), rows(kept.iterations, number), check_dtype=False)


def test_a_load_with_failed_requests_is_kept_but_measured_again(tmp_path):
    failed = []

    def one_in_ten(request):
        failed.append(len(failed) % 10 == 9)
        return "500" if failed[-1] else None

    plan = replace(PLAN, duration_s=1.0, loads=(0.2,))
    run = Measured(tmp_path, plan, failing="load-0.2", fault=one_in_ten).run
    assert [phase.ok for phase in run.meta.phases] == [True] * 4 + [False]
    requests = rows(run.requests, 4)
    assert set(requests[~requests["ok"]]["error"]) == {"HTTP 500: out of luck"}
    assert requests[~requests["ok"]]["finish_s"].isna().all()
    again = Measured(tmp_path, plan).run
    assert all(phase.ok for phase in again.meta.phases)
    assert rows(again.requests, 4)["ok"].all()
    assert len(again.meta.phases) == 5


def test_a_server_that_fails_at_once_leaves_nothing(tmp_path):
    with pytest.raises(CalibrationError, match="HTTP 500: out of luck; nothing had been measured"):
        Measured(tmp_path, fault="500")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_plan_is_left_alone(tmp_path):
    Measured(tmp_path)
    with pytest.raises(CalibrationError, match=r"holds a run with another budget_s, seed: give the same options"):
        Measured(tmp_path, replace(PLAN, budget_s=9.0, seed=3))


def test_a_run_of_another_engine_is_left_alone(tmp_path):
    with pytest.raises(CalibrationError, match="kept"):
        Measured(tmp_path, failing="capacity", fault="500")
    before = (tmp_path / "run" / META).read_bytes()
    with pytest.raises(CalibrationError, match="run of another engine: gpu was cpu, now is H100"):
        Measured(tmp_path, names=Names(gpu="H100"))
    assert (tmp_path / "run" / META).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype was fp8, now is auto"),
        ({"block_size": 32}, "block_size was 32, now is"),
    ],
)
def test_an_engine_with_other_settings_is_another_engine(tmp_path, change, said):
    with pytest.raises(CalibrationError, match="kept"):
        Measured(tmp_path, failing="capacity", fault="500")
    meta = json.loads((tmp_path / "run" / META).read_text())
    meta["engine_args"] |= change
    (tmp_path / "run" / META).write_text(json.dumps(meta))
    with pytest.raises(CalibrationError, match=f"holds a run of another engine: {said}"):
        Measured(tmp_path)


@pytest.mark.parametrize(
    ("errors", "well"),
    [
        ([None, None], True),
        ([], True),
        ([None, f"{CUT}: the phase ended"], True),  # it fell behind: that is what was measured
        ([f"{CUT}: the phase ended"], False),  # nothing came: it hung
        ([None, "HTTP 500: no"], False),
    ],
)
def test_a_load_whose_end_cut_some_requests_off_is_measured(errors, well):
    assert went_well([Answer("q", 1, 1, error=error) for error in errors]) is well


def test_a_resumed_engine_with_other_kv_blocks_is_noted(tmp_path):
    with pytest.raises(CalibrationError, match="kept"):
        Measured(tmp_path, failing="load-0.5", fault="500", plan=replace(PLAN, duration_s=1.0))
    meta = json.loads((tmp_path / "run" / META).read_text())
    (tmp_path / "run" / META).write_text(json.dumps({**meta, "num_gpu_blocks": 80}))
    run = Measured(tmp_path, replace(PLAN, duration_s=1.0)).run
    assert run.meta.notes == ("resumed with 65 KV blocks in place of 80",)


def test_without_the_plug_in_requests_are_measured_alone(tmp_path):
    limits = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "tensor_parallel": 2}
    run = Measured(tmp_path, traced=False, names=Names(gpu="H100", scheme="fp8"), **limits).run
    assert (run.meta.gpu, run.meta.scheme, run.meta.tensor_parallel) == ("H100", "fp8", 2)
    assert len(run.iterations) == 0
    assert len(run.requests) > 0
    assert (run.meta.vllm, run.meta.num_gpu_blocks, run.meta.max_model_len) == ("0.32.0", 65, 256)


def test_without_the_plug_in_the_limits_must_be_given(tmp_path):
    with pytest.raises(CalibrationError, match="give --max-num-seqs and --max-num-batched-tokens"):
        Measured(tmp_path, traced=False)


def test_without_the_plug_in_nobody_guesses_what_is_measured(tmp_path):
    with pytest.raises(CalibrationError, match=r"does not tell what it runs on: give --gpu and --scheme$"):
        Measured(tmp_path, traced=False, names=Names(), max_num_seqs=4, max_num_batched_tokens=64)
    assert not (tmp_path / "run").exists()


def test_a_server_whose_vllm_lacks_the_plug_in_is_one_line(tmp_path):
    with served(FakeVllm(None)) as url, pytest.raises(CalibrationError, match="simroute must be installed in the"):
        measure(Target(url=url, trace_steps=tmp_path / "steps"), PLAN, tmp_path / "run", Names(), lambda *_: None)


def test_no_server_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(CalibrationError, match=r"no vLLM server there: .* gave no answer \(cannot connect"):
        measure(Target(url="http://127.0.0.1:9"), PLAN, tmp_path / "run", Names(), lambda *_: None)
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_found_before_anything_is_measured(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CalibrationError, match="cannot write there"):
        Measured(tmp_path)


def test_the_budget_is_shared_out(tmp_path):
    plan = Plan(loads=(0.3, 0.6, 0.9), budget_s=400.0)
    loads = sum(1.25 * plan.seconds(f"load-{x:g}") for x in plan.loads)
    assert sum(plan.seconds(name) for name in plan.phases()[:4]) + loads == pytest.approx(400.0)
    assert replace(plan, duration_s=30.0).seconds("load-0.9") == 30.0
