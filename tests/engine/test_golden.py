"""Every decision of vLLM's own scheduler, as logged, down to the last block id; and the stepper as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine.cases import GOLDEN, ordered, read

from simroute.engine.stepper import main, run_case
from simroute.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_all_logs_are_here():
    assert len(GOLDEN) == 17
    assert {read(path)["vllm_version"] for path in GOLDEN} == {"0.32.0"}


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_every_step_is_vllms(path):
    case = read(path)
    mine = [ordered(record) for record in run_case(case)]
    assert mine == [ordered(record) for record in case["steps"]]


def test_the_logs_are_worth_agreeing_with():
    """They hold preemptions of both kinds, prefix hits, chunked prompts and waiting queues."""
    steps = [step for path in GOLDEN for step in read(path)["steps"]]
    assert sum(len(step["preempted"]) for step in steps) > 50
    assert {kind for step in steps for kind in step.get("preempt_kind", ())} == {"self", "other"}
    assert sum(tokens for step in steps for tokens in step["admitted"].values()) > 1000
    assert any(step["start"][name] and name not in step["samples"] for step in steps for name in step["scheduled"])
    assert sum(bool(step["waiting"]) for step in steps) > 200


def test_the_command_prints_the_log():
    path = next(path for path in GOLDEN if path.stem == "g4_prefix_shared_async")
    done = subprocess.run(
        [sys.executable, "-m", "simroute.engine.stepper", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == read(path)["steps"]


CASE: dict[str, Any] = {
    "config": {"max_model_len": 64},
    "requests": [{"id": "a", "arrival_step": 0, "prompt_segments": [[1, 8]], "max_tokens": 2}],
}
BAD = {
    "not JSON": ("{", "JSONDecodeError"),
    "no requests": (json.dumps({"config": {"max_model_len": 64}}), "requests"),
    "unknown setting": (json.dumps(CASE | {"config": {"max_model_length": 64}}), "max_model_length"),
    "refused setting": (json.dumps(CASE | {"config": {"max_model_len": 64, "block_size": 0}}), "block_size"),
    "no arrival": (json.dumps(CASE | {"requests": [{"id": "a", "prompt": [1], "max_tokens": 2}]}), "arrival_step"),
    "no prompt": (json.dumps(CASE | {"requests": [{"id": "a", "arrival_step": 0, "max_tokens": 2}]}), "prompt"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD.values(), ids=BAD)
def test_a_bad_case_is_one_line_and_code_2(text, complaint, tmp_path, capsys):
    path = tmp_path / "case.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}: ")
    assert complaint in err
    assert err.count("\n") == 1


def test_a_missing_file_and_a_missing_argument(tmp_path, capsys):
    assert main([str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_settings_left_out_have_the_defaults_of_the_logs():
    """An 8,192-token model does not fit the logs' 1,024 blocks of 8 tokens, and does fit those of 16."""
    assert len(list(run_case(CASE | {"config": {}}))) == 2
    with pytest.raises(UsageError, match="max_model_len 8192 needs 1024 KV blocks"):
        run_case(CASE | {"config": {"block_size": 8}})


def test_prompts_as_token_ids_or_segments():
    ids = {"id": "a", "arrival_step": 0, "prompt": list(range(1_000_000, 1_000_008)), "max_tokens": 2}
    assert list(run_case(CASE | {"requests": [ids]})) == list(run_case(CASE))
