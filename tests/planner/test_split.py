"""A replay in windows: exact where windows begin idle, near where they do not, and refused where it cannot be."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simroute
from simroute.cli.main import main
from simroute.errors import SimulationError, UsageError
from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import InProcess, ProcessPool
from simroute.planner.split import SplitInterrupted, spans_of, split_run
from simroute.planner.windows.joined import differences
from simroute.planner.windows.piece import ROWS, Piece, Span
from simroute.planner.windows.window import replay_piece
from simroute.policy.context import NO_REPLICA
from simroute.policy.snapshot import Decision
from simroute.results.run import Status
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load
from simroute.scenario.run import RunResult
from simroute.workload.trace import Trace

POOL = {"name": "only", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L40S"}


def built(folder: Path, trace: Trace, **fields: Any) -> Built:
    """A scenario on this trace."""
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n")
    data = {"name": "tiny", "traffic": {"traces": [{"path": "trace.csv"}]}, "pools": [POOL]}
    (folder / "tiny.yaml").write_text(json.dumps(data | fields))
    return build(load(folder / "tiny.yaml"), trace)


def bursts(count: int = 24, every_s: float = 50.0) -> Trace:
    """Bursts of five requests, between which the fleet is idle; one prompt in each is longer than the engine takes."""
    arrival_s = np.concatenate([every_s * k + np.array([0.0, 0.1, 0.2, 0.3, 1.0]) for k in range(count)])
    rng = np.random.default_rng(1)
    prompts = rng.integers(10, 3000, len(arrival_s))
    prompts[::5] = 9000
    return Trace.build(arrival_s=arrival_s, input_tokens=prompts, output_tokens=rng.integers(1, 300, len(arrival_s)))


def poisson(rate: float, requests: int = 3000) -> Trace:
    rng = np.random.default_rng(2)
    return Trace.build(
        arrival_s=np.cumsum(rng.exponential(1 / rate, requests)),
        input_tokens=rng.integers(50, 2000, requests),
        output_tokens=rng.integers(10, 400, requests),
    )


class Aloof:
    """A policy that knows no replica for long prompts."""

    def __init__(self, options: object, context: object) -> None:
        pass

    def choose(self, request: Any, snapshots: Any) -> Decision:
        return Decision(-1, NO_REPLICA) if request.input_tokens == 9000 else Decision(0)


def test_what_is_held_for_ever_is_not_waited_for(tmp_path):
    """One request of each burst, in every window: it ends unfinished, as it does when all is replayed at once."""
    fields = {"policies": ["planner.test_split:Aloof"], "router": {"queue": {}}}
    whole = built(tmp_path, bursts(8), **fields)
    unsplit = simroute.run(whole, jobs=1).results[0].fleet
    split = split_run(whole, windows=2, warmup_s=120.0, executor=InProcess()).results[0].fleet
    for run in (unsplit, split):
        assert (run.status == Status.UNFINISHED).nonzero()[0].tolist() == list(range(0, 40, 5))
    np.testing.assert_allclose(split.finish_s, unsplit.finish_s, rtol=1e-9)


@pytest.mark.parametrize("fields", [{}, {"router": {"latency_s": 0.01}}], ids=["direct", "gateway"])
def test_windows_that_begin_idle_give_the_unsplit_run(tmp_path, fields):
    whole = built(tmp_path, bursts(), pools=[{**POOL, "engine": {"max_model_len": 8192}}], **fields)
    unsplit = simroute.run(whole, jobs=1).results[0]
    split = split_run(whole, windows=5, warmup_s=120.0, executor=InProcess()).results[0]
    ours, theirs = split.fleet, unsplit.fleet
    for name in ("first_token_s", "finish_s"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)
    for name in ("status", "replica", "preemptions", "cached_tokens", "generated_tokens"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.status == Status.REJECTED).sum() == 24
    assert ours.reasons == theirs.reasons
    np.testing.assert_array_equal(ours.reason_code, theirs.reason_code)
    assert ours.itl.count == theirs.itl.count
    assert ours.itl.mean == pytest.approx(theirs.itl.mean)
    assert ours.end_s == pytest.approx(theirs.end_s)
    (mine,), (other,) = ours.replicas, theirs.replicas
    assert (mine.steps, mine.prefill_tokens, mine.output_tokens) == (
        other.steps,
        other.prefill_tokens,
        other.output_tokens,
    )
    assert mine.busy_s == pytest.approx(other.busy_s)
    assert (mine.prefix_queried_tokens, mine.billed_s) == (other.prefix_queried_tokens, pytest.approx(other.billed_s))
    numbers = {key: value for key, value in split.summary.items() if key in ("slo_attainment", "requests", "ttft_s")}
    assert numbers == {key: pytest.approx(unsplit.summary[key]) for key in numbers}
    assert all(abs(change) < 1e-6 for change in split.summary["split"]["differences"].values())


def test_windows_that_begin_busy_are_near(tmp_path):
    whole = built(tmp_path, poisson(8.0), pools=[{**POOL, "replicas": 2}])
    unsplit = simroute.run(whole, jobs=1).results[0]
    split = split_run(whole, windows=4, warmup_s=60.0, executor=InProcess()).results[0]
    assert split.summary["requests"] == unsplit.summary["requests"]
    for latency in ("ttft_s", "tpot_s", "e2e_s", "itl_s"):
        for point in ("p50", "p90", "p99"):
            assert split.summary[latency][point] == pytest.approx(unsplit.summary[latency][point], rel=0.05)
    ours, theirs = (
        np.array([[r.steps, r.output_tokens, r.busy_s] for r in run.fleet.replicas]) for run in (split, unsplit)
    )
    np.testing.assert_allclose(ours.sum(axis=0), theirs.sum(axis=0), rtol=0.02)
    assert split.fleet.itl.count == pytest.approx(unsplit.fleet.itl.count, rel=0.01)
    t_s = split.fleet.timeline.t_s
    assert (np.diff(t_s) > 0).all()
    found = split.summary["split"]
    assert (found["windows"], found["warmup_s"]) == (4, 60.0)
    assert 600 < found["sample_requests"] < 900
    assert any(
        "the largest difference of a percentile from the unsplit run is" in note for note in split.summary["notes"]
    )


def test_processes_and_policies_change_nothing(tmp_path):
    whole = built(tmp_path, bursts(8), policies=["round_robin", "least_requests"])
    one, two = (
        split_run(whole, windows=3, executor=executor, warmup_s=60.0) for executor in (InProcess(), ProcessPool(2))
    )
    assert [result.summary["policy"] for result in one.results] == ["round_robin", "least_requests"]
    assert json.dumps(one.summary()) == json.dumps(two.summary())


def test_windows_without_traffic_are_left_out(tmp_path):
    arrival_s = np.array([0.0, 1.0, 500.0, 501.0])
    whole = built(tmp_path, Trace.build(arrival_s=arrival_s, input_tokens=100, output_tokens=10))
    assert [(span.begin, span.end) for span in spans_of(whole, 10, 5.0)] == [(0, 2), (2, 4)]
    run = split_run(whole, windows=10, warmup_s=5.0, executor=InProcess()).results[0].fleet
    assert (run.status == Status.COMPLETED).all()
    at_once = replace(whole, trace=Trace.build(arrival_s=np.zeros(3), input_tokens=9, output_tokens=1))
    assert len(spans_of(at_once, 4, 5.0)) == 1
    assert (split_run(at_once, windows=4, executor=InProcess()).results[0].fleet.status == Status.COMPLETED).all()


def test_every_row_is_in_one_window(tmp_path):
    spans = spans_of(built(tmp_path, poisson(5.0, 500)), 7, 10.0)
    rows = [row for span in spans for row in range(span.begin, span.end)]
    assert rows == list(range(500))
    assert spans[-1].stop_s is None
    assert all(a.stop_s == b.start_s for a, b in pairwise(spans))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"pools": [{**POOL, "autoscale": {"max_replicas": 4, "options": {"targets": {"concurrency": 10}}}}]},
            "pools with autoscale",
        ),
        ({"failures": {"crashes": [{"mtbf_s": 100}]}}, "failures"),
        ({"clients": {"users": 3}}, "clients.users"),
        ({"horizon_s": 10}, "horizon_s"),
    ],
)
def test_what_no_warm_up_restores_is_refused(tmp_path, fields, said):
    with pytest.raises(UsageError, match=said):
        split_run(built(tmp_path, bursts(3), **fields), windows=2)


@pytest.mark.parametrize(
    ("arguments", "said"), [({"windows": 1}, "from 2 to"), ({"windows": 2, "warmup_s": -1}, "warm-up")]
)
def test_impossible_numbers_are_refused(tmp_path, arguments, said):
    with pytest.raises(UsageError, match=said):
        split_run(built(tmp_path, bursts(3)), **arguments)


def test_a_window_that_fails_is_told(tmp_path, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise SimulationError("no")

    monkeypatch.setattr("simroute.planner.split.replay_piece", fail)
    with pytest.raises(SimulationError, match="window from 0 s and 2 more failed: no; none of its replays is kept"):
        split_run(built(tmp_path, bursts(3)), windows=2, executor=InProcess())


def test_differences_are_relative_and_of_percentiles():
    def all_at(value: float) -> dict[str, float]:
        return dict.fromkeys(("p50", "p90", "p95", "p99"), value)

    ours = {"ttft_s": all_at(1.1), "tpot_s": all_at(float("nan")), "e2e_s": all_at(1.0)}
    found = differences(ours, {"ttft_s": all_at(1.0), "tpot_s": all_at(1.0), "e2e_s": all_at(0.0)})
    assert found["ttft_s.p99"] == pytest.approx(0.1)
    assert found["tpot_s.p50"] is None
    assert found["e2e_s.p50"] is None


def test_the_command_splits(tmp_path, monkeypatch, capsys):
    rows = "".join(f"{i},{100 + i},20\n" for i in range(120))
    built(tmp_path, bursts(2))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    monkeypatch.setattr("simroute.planner.execution.executor.cpus", lambda: 1)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["simroute", "run", str(tmp_path / "tiny.yaml"), *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return (int(stopped.value.code or 0), *capsys.readouterr())

    code, out, err = run("--split", "3", "--warmup", "20", "--json")
    assert (code, err) == (0, "")
    (summary,) = json.loads(out)["policies"].values()
    assert set(summary["split"]) == {
        *("windows", "warmup_s", "lengthened", "disagreeing"),
        *("sample_requests", "differences"),
    }
    assert summary["requests"]["completed"] == 120
    assert "split into 3 windows, each behind 20 s of the traffic before it" in run("--split", "3", "--warmup", "20")[1]
    assert run("--split", "3", "-o", str(tmp_path / "out"), "--assert", "requests.completed == 120")[0] == 0
    code, _, err = run("--split", "3", "--replicates", "2")
    assert (code, "give --split or --replicates" in err) == (2, True)
    for option in ("--warmup", "--ray-address", "--cache"):
        code, _, err = run(option, "9")
        assert (code, f"{option}: needs --split N" in err) == (2, True)
    assert run("--executor", "ray")[0] == 2
    assert run("--jobs", "1", "--quiet")[0] == 0
    page = (Path(__file__).resolve().parents[2] / "docs/split.md").read_text("utf-8")
    assert all(f"`{key}`" in page for key in summary["split"])


def replays_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Where the windows begin that are replayed from now on, in this process."""
    begun: list[float] = []

    def noted(built: Built, spec: Any, span: Span, *, exact: bool) -> Piece:
        begun.append(span.start_s)
        return replay_piece(built, spec, span, exact=exact)

    monkeypatch.setattr("simroute.planner.split.replay_piece", noted)
    return begun


def in_windows(whole: Built, cache: Cache | None = None, **options: Any) -> RunResult:
    return split_run(whole, windows=4, warmup_s=60.0, executor=InProcess(), cache=cache, **options)


def test_windows_are_kept_and_used_again(tmp_path, monkeypatch):
    whole = built(tmp_path, bursts(12), policies=["least_requests", "round_robin"])
    begun = replays_of(monkeypatch)
    first = in_windows(whole, Cache(tmp_path / "kept"))
    assert len(begun) == 2 * 5
    again = in_windows(whole, Cache(tmp_path / "kept"))
    assert len(begun) == 2 * 5
    assert json.dumps(again.summary()) == json.dumps(first.summary()) == json.dumps(in_windows(whole).summary())
    for ours, theirs in zip(again.results, first.results, strict=True):
        for name in ROWS:
            mine, other = getattr(ours.fleet, name), getattr(theirs.fleet, name)
            np.testing.assert_array_equal(mine, other)
            assert mine is None or mine.dtype == other.dtype
    begun.clear()
    in_windows(whole, Cache(tmp_path / "kept"), exact=True)
    in_windows(whole, Cache(tmp_path / "kept"), seed=7)
    assert len(begun) == 4 * 5


def test_ctrl_c_keeps_the_windows_that_are_done(tmp_path, monkeypatch):
    whole = built(tmp_path, bursts(12))
    begun = replays_of(monkeypatch)
    told: list[float] = []

    def tell(share: float) -> None:
        told.append(share)
        if len(told) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    cache = Cache(tmp_path / "kept")
    with pytest.raises(SplitInterrupted, match=rf"interrupted: 2 of 5 replays are kept in {tmp_path}/kept: the same"):
        in_windows(whole, cache, progress=tell)
    again = in_windows(whole, cache, progress=told.append)
    assert len(begun) == 5
    assert json.dumps(again.summary()) == json.dumps(in_windows(whole).summary())
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_window_that_fails_costs_none_of_the_others(tmp_path, monkeypatch):
    whole = built(tmp_path, bursts(12))

    def failing(built: Built, spec: Any, span: Span, *, exact: bool) -> Piece:
        if span.begin == 15 and span.from_s > 0:
            raise SimulationError("no")
        return replay_piece(built, spec, span, exact=exact)

    monkeypatch.setattr("simroute.planner.split.replay_piece", failing)
    cache = Cache(tmp_path / "kept")
    with pytest.raises(
        SimulationError, match=r"^window from 138 s failed: no; 4 of 5 replays are kept in .*: the same"
    ):
        in_windows(whole, cache)
    begun = replays_of(monkeypatch)
    in_windows(whole, cache)
    assert begun == [pytest.approx(551 / 4)]


def test_a_damaged_window_is_replayed_and_a_full_disk_is_no_end(tmp_path, monkeypatch):
    whole = built(tmp_path, bursts(12))
    in_windows(whole, Cache(tmp_path / "kept"))
    entry = next((tmp_path / "kept").glob("*/*.npz"))
    entry.write_bytes(entry.read_bytes()[:-100])
    said: list[str] = []
    begun = replays_of(monkeypatch)
    in_windows(whole, Cache(tmp_path / "kept", said.append))
    assert len(begun) == 1
    assert f"cache entry {entry}: unreadable" in said[0]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    said.clear()
    result = in_windows(whole, Cache(tmp_path / "elsewhere", said.append))
    assert result.summary() == in_windows(whole).summary()
    (line,) = said
    assert "No space left on device" in line


def test_windows_under_somebody_elses_policy_are_not_kept(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from simroute.policy.routing.baselines import RoundRobin\n\n\nclass Mine(RoundRobin): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    whole = built(tmp_path, bursts(12), policies=["mine:Mine"])
    in_windows(whole, Cache(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def crowd(requests: int, at_s: float, every_s: float) -> Trace:
    """A crowd that comes at once in the middle of a day with a request now and then; it takes minutes to be served."""
    arrival_s = np.sort(np.concatenate([np.arange(0.0, 2000.0, every_s), np.full(requests, at_s)]))
    return Trace.build(arrival_s=arrival_s, input_tokens=4000, output_tokens=300)


def test_a_queue_older_than_the_warm_up_is_noticed_and_brought_along(tmp_path):
    whole = built(tmp_path, crowd(600, 700.0, 10.0))
    unsplit = simroute.run(whole, jobs=1).results[0]
    result = split_run(whole, windows=2, warmup_s=10.0, executor=InProcess()).results[0]
    found = result.summary["split"]
    assert (found["lengthened"], found["disagreeing"]) == (1, 0)
    assert "behind 10 s of the traffic before it (1 of them, which that" in result.summary["notes"][-1]
    np.testing.assert_allclose(result.fleet.finish_s, unsplit.fleet.finish_s, rtol=1e-9)
    long = split_run(whole, windows=2, warmup_s=400.0, executor=InProcess()).results[0]
    assert long.summary["split"]["lengthened"] == 0


def test_another_window_is_the_sample_once_the_first_choice_was_replayed_behind_a_whole_one(tmp_path):
    whole = built(tmp_path, crowd(600, 480.0, 10.0))
    result = split_run(whole, windows=4, warmup_s=10.0, executor=InProcess()).results[0]
    found = result.summary["split"]
    assert (found["lengthened"], found["disagreeing"], found["sample_requests"]) == (1, 0, 50)
    assert any(change is not None for change in found["differences"].values())


def test_a_queue_that_only_grows_is_said_to_be_no_matter_of_windows(tmp_path):
    whole = built(tmp_path, poisson(12.0, 4000))
    result = split_run(whole, windows=4, warmup_s=20.0, executor=InProcess()).results[0]
    found = result.summary["split"]
    assert (found["lengthened"], found["disagreeing"]) == (3, 2)
    assert "differences" not in found
    said = result.summary["notes"][-1]
    assert said.startswith("not what the unsplit run gives: 2 of 4 windows begin otherwise than the window before them")
    assert "give fewer windows, or replay it in one piece" in said


def test_ctrl_c_at_the_command_line_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    rows = "".join(f"{i},{100 + i},20\n" for i in range(120))
    built(tmp_path, bursts(2))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    monkeypatch.chdir(tmp_path)

    def run(*more: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["simroute", "run", "tiny.yaml", "--split", "3", "--warmup", "20", *more])
        with pytest.raises(SystemExit) as stopped:
            main()
        return (int(stopped.value.code or 0), *capsys.readouterr())

    put = Cache.put_arrays

    def interrupted(self: Cache, key: str, arrays: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return put(self, key, arrays)

    monkeypatch.setattr(Cache, "put_arrays", interrupted)
    code, out, err = run("--jobs", "1", "--assert", "requests.completed == 0", "--junit", "j.xml")
    assert (code, out) == (130, "")
    assert err == (
        "warning: interrupted: 1 of 4 replays are kept in .simroute-cache: the same command goes on from there, "
        "assertions were not checked\n"
    )
    assert 'skipped="1"' in (tmp_path / "j.xml").read_text()
    monkeypatch.setattr(Cache, "put_arrays", put)
    assert run("--jobs", "1")[0] == 0
    assert len(list((tmp_path / ".simroute-cache").glob("*/*.npz"))) == 4
    assert run("--jobs", "1", "--no-resume", "-o", "out")[0] == 0
    assert not (tmp_path / "out/.simroute-cache").exists()
