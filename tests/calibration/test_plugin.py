"""The vLLM plug-in against a scheduler with vLLM's attributes: what it records, and that it never gets in the way."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from calibration.fakevllm import FakeScheduler

from simroute.calibration import plugin

MODULE = "vllm.v1.core.sched.scheduler"


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(plugin, "time", SimpleNamespace(monotonic=clock, time=lambda: 5_000.0 + clock.now))
    return clock


@pytest.fixture
def scheduler_class():
    """A fresh class for each test, for wrapping changes it; its methods are its own, as vLLM's are."""
    names = ("schedule", "update_from_output", "_preempt_request", "get_request_counts")
    return type("Scheduler", (FakeScheduler,), {name: getattr(FakeScheduler, name) for name in names})


@pytest.fixture
def file(tmp_path):
    file = plugin.StepFile(str(tmp_path / "steps"))
    yield file
    file.close()


@pytest.fixture
def traced(scheduler_class, file):
    plugin.wrap(scheduler_class, file)
    return scheduler_class()


def written(folder) -> tuple[dict, list[dict]]:
    [file] = folder.glob("steps.*")
    header, *rows = [json.loads(line) for line in file.read_text().splitlines()]
    return header, [dict(zip(header["columns"], row, strict=True)) for row in rows]


def step(scheduler, clock, plan, service_s=0.5):
    """One synchronous iteration that takes `service_s`."""
    scheduler.plan = plan
    output = scheduler.schedule()
    clock.now += service_s
    scheduler.running.clear()
    return scheduler.update_from_output(output, "tokens")


def test_a_mixed_step_is_counted_by_hand(traced, clock, tmp_path):
    traced.add("decodes", prompt=10, computed=12, tokens=13)
    traced.add("chunk", prompt=100, computed=32)
    traced.add("last chunk", prompt=40, computed=32)
    traced.waiting = ["x", "y"]
    assert step(traced, clock, {"decodes": 1, "chunk": 20, "last chunk": 8}) == "tokens"
    _, [row] = written(tmp_path)
    assert row == {
        "t_s": 100.0, "service_s": 0.5, "sched_s": 0.0,
        "prefill_seqs": 2, "prefill_tokens": 28, "prefill_context_tokens": 64,
        "prefill_pairs": (20 * 32 + 20 * 21 // 2) + (8 * 32 + 8 * 9 // 2),
        "decode_seqs": 1, "decode_context_tokens": 13,
        "sampled_seqs": 2,  # "chunk" has 48 tokens of its prompt to go
        "kv_blocks_used": 65 - 1 - 60, "running": 3, "waiting": 2, "preempted": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("computed", "tokens", "count", "decodes"),
    [
        (10, 11, 1, True),  # the first token after the prompt
        (9, 10, 1, False),  # the last token of the prompt, alone in its chunk
        (10, 14, 4, False),  # recomputing answers after a preemption
        (12, 14, 1, True),  # the same, one token of it: computed like any decode
    ],
)
def test_a_request_decodes_when_it_computes_one_token_past_its_prompt(
    traced, clock, tmp_path, computed, tokens, count, decodes
):
    traced.add("a", prompt=10, computed=computed, tokens=tokens)
    step(traced, clock, {"a": count})
    _, [row] = written(tmp_path)
    assert (row["decode_seqs"], row["prefill_seqs"]) == (int(decodes), int(not decodes))
    assert row["sampled_seqs"] == int(computed + count >= tokens)


def test_preemptions_are_those_of_the_step(traced, clock, tmp_path):
    traced.add("a", prompt=10)
    traced.add("b", prompt=10, computed=10)
    step(traced, clock, {"a": 10})
    traced.victims = ["b"]
    step(traced, clock, {"a": 1})
    step(traced, clock, {"a": 1})
    assert [row["preempted"] for row in written(tmp_path)[1]] == [0, 1, 0]


def test_steps_in_flight_overlap_under_asynchronous_scheduling(traced, clock, tmp_path):
    """Step k+1 is scheduled before step k's output: its service begins when that output is there."""
    traced.add("a", prompt=4)
    outputs = []
    for now, plan in ((100.0, {"a": 4}), (100.25, {"a": 1})):
        clock.now, traced.plan = now, plan
        outputs.append(traced.schedule())
    clock.now = 101.0
    traced.update_from_output(outputs[0], None)
    clock.now, traced.plan = 101.125, {"a": 1}
    outputs.append(traced.schedule())
    clock.now = 101.5
    traced.update_from_output(outputs[1], None)
    clock.now = 101.75
    traced.running.clear()
    traced.update_from_output(outputs[2], None)
    rows = written(tmp_path)[1]
    assert [(row["t_s"], row["service_s"]) for row in rows] == [(100.0, 1.0), (100.25, 0.5), (101.125, 0.25)]


def test_a_step_without_tokens_is_not_recorded(traced, clock, tmp_path):
    step(traced, clock, {})
    assert list(tmp_path.iterdir()) == []


def test_the_header_says_what_the_engine_is(traced, clock, tmp_path):
    traced.add("a", prompt=4)
    step(traced, clock, {"a": 4})
    header, _ = written(tmp_path)
    assert header["unix_s"] - header["monotonic_s"] == 5_000.0
    engine = header["engine"]
    assert (engine["num_gpu_blocks"], engine["block_size"], engine["max_num_seqs"]) == (65, 16, 4)
    assert engine["async_scheduling"] is False
    assert (engine["scheduling_policy"], engine["long_prefill_token_threshold"]) == ("fcfs", 0)
    assert (engine["enforce_eager"], engine["cudagraph_capture_sizes"]) == (False, [1, 2, 4])
    assert engine["model_config"] == {"vocab_size": 500}


def test_records_are_buffered_until_the_engine_is_idle_or_a_second_has_passed(traced, clock, tmp_path):
    traced.add("a", prompt=4)
    traced.plan = {"a": 4}
    for _ in range(2):
        output = traced.schedule()
        clock.now += 0.25
        traced.update_from_output(output, None)
    assert len(written(tmp_path)[1]) == 1  # the first, long after the epoch of the clock
    clock.now += 1.0
    traced.update_from_output(traced.schedule(), None)
    assert len(written(tmp_path)[1]) == 3


def test_a_subclass_records_each_step_once(traced, clock, tmp_path):
    asynchronous = type("AsyncScheduler", (type(traced),), {})()
    asynchronous.add("a", prompt=4)
    step(asynchronous, clock, {"a": 4})
    assert len(written(tmp_path)[1]) == 1


def test_wrapping_twice_changes_nothing(traced, clock, tmp_path):
    plugin.wrap(type(traced), plugin.StepFile(str(tmp_path / "other")))
    traced.add("a", prompt=4)
    step(traced, clock, {"a": 4})
    assert len(written(tmp_path)[1]) == 1


def test_a_count_that_is_not_there_is_zero_and_said_once(scheduler_class, clock, tmp_path, caplog, file):
    scheduler_class._preempt_request = None
    scheduler_class.get_request_counts = property(lambda self: 1 / 0)
    with caplog.at_level(logging.WARNING, logger="vllm.plugins.simroute"):
        plugin.wrap(scheduler_class, file)
        scheduler = scheduler_class()
        scheduler.add("a", prompt=4)
        for plan in ({"a": 4}, {"a": 1}):
            step(scheduler, clock, plan)
    assert [row["waiting"] for row in written(tmp_path)[1]] == [0, 0]
    said = [record.getMessage() for record in caplog.records]
    assert sum("preemptions are recorded as 0" in line for line in said) == 1
    assert sum("waiting is recorded as 0: ZeroDivisionError" in line for line in said) == 1


def test_another_kind_of_request_ends_the_tracing_and_not_the_engine(traced, clock, tmp_path, caplog):
    traced.add("a", prompt=4)
    step(traced, clock, {"a": 4})
    del traced.requests["a"].num_prompt_tokens
    for _ in range(2):
        assert step(traced, clock, {"a": 1}) == "tokens"
    assert len(written(tmp_path)[1]) == 1
    assert [r.getMessage() for r in caplog.records if "no longer traced: AttributeError" in r.getMessage()] != []
    assert sum("no longer traced" in r.getMessage() for r in caplog.records) == 1


def test_a_file_that_cannot_be_written_ends_the_tracing_and_not_the_engine(scheduler_class, clock, tmp_path, caplog):
    plugin.wrap(scheduler_class, plugin.StepFile(str(tmp_path / "no" / "such" / "folder")))
    scheduler = scheduler_class()
    scheduler.add("a", prompt=4)
    assert step(scheduler, clock, {"a": 4}) == "tokens"
    assert step(scheduler, clock, {"a": 1}) == "tokens"
    assert sum("no longer traced: FileNotFoundError" in r.getMessage() for r in caplog.records) == 1


def test_nothing_happens_without_the_variable(scheduler_class, monkeypatch):
    monkeypatch.delenv(plugin.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(Scheduler=scheduler_class))
    plugin.register()
    assert not hasattr(scheduler_class, "_simroute_wrapped")


def test_the_entry_point_wraps_vllms_scheduler(scheduler_class, monkeypatch, tmp_path, clock):
    for name in ("vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(Scheduler=scheduler_class))
    monkeypatch.setenv(plugin.VARIABLE, str(tmp_path / "steps"))
    at_exit = []
    monkeypatch.setattr(plugin.atexit, "register", at_exit.append)
    plugin.register()
    scheduler = scheduler_class()
    scheduler.add("a", prompt=4)
    step(scheduler, clock, {"a": 4})
    assert len(written(tmp_path)[1]) == 1
    at_exit[0]()


def test_a_vllm_without_such_a_scheduler_is_said_and_left_alone(monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(sys.modules, MODULE, None)
    monkeypatch.setenv(plugin.VARIABLE, str(tmp_path / "steps"))
    plugin.register()
    assert "steps are not traced: ModuleNotFoundError" in caplog.text


def test_importing_it_needs_nothing_that_vllms_environment_may_lack():
    heavy = {"numpy", "pandas", "pydantic", "pyarrow", "scipy", "simpy", "typer", "yaml"}
    code = f"import sys, simroute.calibration.plugin; print({heavy} & set(sys.modules) or 'light')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "light\n"


def test_the_package_declares_the_entry_point():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vllm.general_plugins"] == {"simroute_steps": "simroute.calibration.plugin:register"}
