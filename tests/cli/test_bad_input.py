"""Bad input: one clear line each, no traceback, the right exit code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USAGE = 2


def refused(outcome, *texts):
    """The command was refused as the user's to mend, in lines that say these things."""
    assert outcome.code == USAGE, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert all(line.startswith("simroute: ") for line in outcome.err.splitlines())
    for text in texts:
        assert text in outcome.err


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ("pools[0].model=Lama-3.1-8B", ["unknown model 'Lama-3.1-8B': did you mean", "Llama-3.1-8B"]),
        ("pools[0].gpu=H10", ["unknown GPU 'H10': did you mean", "H100"]),
        ("pools[0].quantization=fp9", ["unknown quantization scheme 'fp9': did you mean", "fp8"]),
        ("policies=[quant_awar]", ["policies[0]: unknown policy 'quant_awar': did you mean ", "quant_aware?"]),
        (
            "policies=['nowhere_at_all:Own']",
            ["policies[0]: policy nowhere_at_all:Own: no module named 'nowhere_at_all'"],
        ),
        ("pools[0].replica=2", ["--set pools[0].replica: unknown field 'replica': did you mean", "replicas"]),
        ("pools[0].replicas=0", ["--set pools[0].replicas: must be ≥ 1, got 0"]),
        ("pools[0].replicas=two", ["must be a whole number, got two"]),
        ("pools[0].price={provider: Nowhere}", ["no on_demand price of L40S at Nowhere; known"]),
        ("horizon_s=-1", ["--set horizon_s: must be > 0, got -1"]),
        ("horizon_s=.nan", ["--set horizon_s: must be a finite number, got nan"]),
        ("traffic.rate_scale=.inf", ["--set traffic.rate_scale: must be a finite number, got inf"]),
        ("traffic.rate_scale=1e-300", ["--set traffic.rate_scale: must be ≥ 1e-06, got 1e-300"]),
        ("pools[0].replicas=99999", ["--set pools[0].replicas: must be ≤ 10000, got 99999"]),
        ("router.scrape_interval_s=1e-9", ["router.scrape_interval_s: 1e-09 s means", "would never finish"]),
        ("traffic.traces[0].window_s=[a, 3]", ["--set traffic.traces[0].window_s[0]: must be a number, got a"]),
        ("traffic.traces[0].window_s=[1, 2, 3]", ["window_s: must have 2 values, got 3"]),
        ("traffic.traces[0].path=/dev/null", ["path: not a regular file: /dev/null"]),
        ("samples=3", ["--set samples: must be ≥ 10, got 3"]),
        ("samples=1000000", ["--set samples: must be ≤ 100000, got 1000000"]),
        ("traffic.traces=[]", ["--set traffic.traces: must not be empty"]),
        ("traffic.traces[0].format=azur", ["unknown trace format 'azur': did you mean azure?"]),
        ("traffic.traces[0].window_s=[9, 3]", ["must be [from, to] with from < to, got [9, 3]"]),
        (
            "pools[0].engine={max_model_len: 999999}",
            ["tiny.yaml:8:5 pools[0]: ", "does not fit", "max_model_len 252016 would fit"],
        ),
        ("pools[0].tensor_parallel=3", ["--set pools[0].tensor_parallel: ", "which divide by 1, 2, 4, 8"]),
        ("pools[0].kv_cache_dtype=fp3", ["--set pools[0].kv_cache_dtype: must be auto, bfloat16"]),
        ("pools[0].engine={enable_chunked_prefill: false}", ["enable chunked prefill or raise max_num_batched_tokens"]),
        (
            "policies=[{name: static_tier, options: {tiers: {free: onli}}}]",
            ["policies[0].options: static_tier: unknown pool 'onli': did you mean only?"],
        ),
        ("policies=[random, random]", ["'random' is already the label of policies[0]: give one of them another label"]),
    ],
)
def test_a_wrong_value_is_refused_with_the_way_out(simroute, change, texts):
    refused(simroute("run", "tiny.yaml", "--set", change), *texts)


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(simroute):
    refused(simroute("check", "tiny.yaml", "--set", "pools[0].model=Llama-3.3-70B"), "Llama-3.3-70B", "GiB", "L40S")


def test_all_problems_of_a_file_are_told_at_once_in_its_order(simroute, folder):
    (folder / "bad.yaml").write_text(
        "name: bad\ntraffic:\n  traces: [{path: nowhere.csv}]\npools:\n"
        "  - {name: a, model: Llama-3.1-8B, gpu: H1000, replicas: 0}\n"
        "  - {name: a, model: Llama-3.1-8C, gpu: L4}\npolicies: [ramdom]\n"
    )
    outcome = simroute("check", "bad.yaml")
    refused(outcome)
    assert [line.split(": ")[1] for line in outcome.err.splitlines()] == [
        "bad.yaml:3:19 traffic.traces[0].path",
        "bad.yaml:5:58 pools[0].replicas",
        "bad.yaml:6:22 pools[1].model",
        "bad.yaml:7:12 policies[0]",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("arrival_s,input_tokens,output_tokens\n", "no requests"),
        ("arrival_s,input_tokens,output_tokens\n0,-5,3\n", "input_tokens: -5 is below 1"),
        ("arrival_s,input_tokens,output_tokens\nnan,5,3\n", "line 2 (arrival_s"),
        ("colour,taste\nred,sweet\n", "not recognised as any trace format"),
    ],
)
def test_a_useless_trace_is_refused(simroute, folder, text, message):
    (folder / "trace.csv").write_text(text)
    refused(simroute("run", "tiny.yaml"), message)


def test_a_missing_trace_is_refused_where_it_was_named(simroute):
    refused(simroute("run", "tiny.yaml", "--trace", "gone.csv"), "--trace gone.csv: no such file")


def test_bad_rows_are_counted_and_the_first_five_named(simroute, folder):
    with (folder / "trace.csv").open("a") as trace:
        trace.write("13,x,3\n" * 6 + "14,,3\n")
    notes = json.loads(simroute("run", "tiny.yaml", "--json").out)["notes"]
    (note,) = (note for note in notes if "bad rows" in note)
    assert "skipped 7 bad rows: line 62 (" in note
    assert "line 66 (" in note
    assert "line 67" not in note


def test_unsorted_arrivals_are_sorted_and_said(simroute, folder):
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n5,10,3\n1,10,3\n")
    summary = json.loads(simroute("run", "tiny.yaml", "--json").out)
    assert any("arrivals out of order: sorted" in note for note in summary["notes"])


def test_prompts_beyond_max_model_len_are_rejected_counted_and_said(simroute):
    done = simroute("run", "tiny.yaml", "--json", "--set", "pools[0].engine={max_model_len: 250}")
    summary = json.loads(done.out)
    requests = summary["policies"]["least_requests"]["requests"]
    assert (requests["arrived"], requests["rejected"], requests["completed"]) == (60, 10, 50)
    assert any(note.startswith("10 of 60 requests have prompts of 250 tokens or more") for note in summary["notes"])


def test_prefix_blocks_that_do_not_fit_kv_blocks_are_refused(simroute, folder):
    lines = (json.dumps({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}) for _ in "ab")
    (folder / "mooncake.jsonl").write_text("\n".join(lines) + "\n")
    change = "pools[0].engine={block_size: 48}"
    refused(simroute("run", "tiny.yaml", "--trace", "mooncake.jsonl", "--set", change), "block_size 48", "512 tokens")


@pytest.mark.parametrize("scenario", ["gone.yaml", "nowhere/tiny.yaml", "."])
def test_a_scenario_that_cannot_be_read_is_refused(simroute, scenario):
    refused(simroute("run", scenario), scenario)


@pytest.mark.parametrize("target", ["trace.csv", "trace.csv/out", "/proc/nowhere"])
def test_an_unwritable_output_directory_is_refused_before_anything_runs(simroute, target):
    refused(simroute("run", "tiny.yaml", "-o", target), target)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run"], "SCENARIO"),
        (["rum", "tiny.yaml"], "rum"),
        (["run", "tiny.yaml", "--sead", "3"], "--sead"),
        (["run", "tiny.yaml", "--seed", "-3"], "'--seed'"),
    ],
)
def test_wrong_usage_exits_with_two(simroute, arguments, text):
    outcome = simroute(*arguments)
    assert outcome.code == USAGE
    assert text in outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_policy_or_metric_is_refused_before_anything_runs(simroute):
    refused(simroute("run", "tiny.yaml", "--policy", "least"), "unknown policy 'least'", "least_kv")
    refused(simroute("run", "tiny.yaml", "--assert", "ttft_p98 < 2s"), "unknown metric 'ttft_p98'")


def test_an_internal_error_is_one_line_and_says_how_to_see_more(simroute, monkeypatch):
    def broken(*arguments, **named):
        raise RuntimeError("the roof is on fire")

    monkeypatch.setattr("simroute.scenario.build.build", broken)
    outcome = simroute("run", "tiny.yaml")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "simroute: internal error: RuntimeError: the roof is on fire",
        "simroute: set SIMROUTE_TRACEBACK=1 to see where it happened",
    ]


def test_a_full_disk_is_one_line(simroute, monkeypatch):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("simroute.scenario.build.build", full)
    outcome = simroute("run", "tiny.yaml")
    assert (outcome.code, outcome.err) == (1, "simroute: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("arguments", [("schema",), ("catalogue", "models"), ("--version",)], ids=" ".join)
def test_a_reader_that_leaves_early_ends_it_quietly_as_any_tool(arguments):
    """141 is what a shell says of a tool that SIGPIPE ended: no internal error, and nothing a gate takes for ok."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "simroute", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(timeout=60) == 141


def test_ctrl_c_outside_a_replay_is_one_line(simroute, monkeypatch):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("simroute.scenario.build.build", interrupted)
    assert simroute("run", "tiny.yaml") == (130, "", "simroute: interrupted\n")


def test_a_pool_with_a_fault_is_not_called_unknown(simroute):
    policy = "policies=[{name: static_tier, options: {tiers: {free: only}}}]"
    outcome = simroute("check", "tiny.yaml", "--set", "pools[0].replicas=1000000000", "--set", policy)
    refused(outcome, "pools[0].replicas: must be ≤ 10000")
    assert "unknown pool" not in outcome.err


def test_a_scenario_that_is_not_there_and_has_no_near_name(simroute):
    outcome = simroute("run", "zzzzz.yml")
    refused(outcome)
    assert outcome.err == "simroute: zzzzz.yml: no such file\n"


def test_an_unknown_operator_is_named(simroute):
    refused(simroute("run", "tiny.yaml", "--assert", "ttft_p99 << 5s"), "unknown operator '<<'")


def test_a_trace_without_a_needed_column_names_it(simroute, folder):
    (folder / "short.csv").write_text("arrival_s,input_tokens,tier\n0,10,a\n")
    refused(simroute("trace", "inspect", "short.csv"), "short.csv: column output_tokens is missing")


def test_bad_rows_are_in_the_statistics_and_told_on_stderr(simroute, folder):
    (folder / "dirty.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n1,x,5\n2,10,5\n")
    done = simroute("trace", "inspect", "dirty.csv", "--json")
    notes = json.loads(done.out)["notes"]
    assert notes
    assert done.err == "".join(f"note: {note}\n" for note in notes)
