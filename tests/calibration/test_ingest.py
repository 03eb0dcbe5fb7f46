"""Benchmarks of others as run directories: files written by hand in the formats that the tools write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simroute.calibration.fit import fit
from simroute.calibration.ingest import guidellm, iteration_log, vllm_forward, vllm_serve, vllm_sweep
from simroute.calibration.ingest.described import NOT_RECORDED, Described
from simroute.calibration.runs import read_run, write_run
from simroute.errors import CalibrationError, SimrouteError, UsageError

ENGINE = Described(gpu="H100", scheme="bf16", settings={"num_gpu_blocks": 1000, "block_size": 16})


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def serve_result(**changes: object) -> dict[str, object]:
    """Three requests, the last of which failed; the clock is a monotonic one."""
    result = {
        "model_id": "org/model", "start_times": [5000.0, 5000.5, 5001.0], "input_lens": [10, 20, 30],
        "output_lens": [3, 1, 0], "ttfts": [0.1, 0.2, 0.0], "itls": [[0.03, 0.04], [], []],
        "latencies": [0.18, 0.2, 0.0], "errors": ["", "", "Traceback: refused"], "max_concurrency": None,
    }  # fmt: skip
    return {**result, **changes}


def test_a_result_of_bench_serve(tmp_path):
    run = vllm_serve.read(written(tmp_path / "bench.json", serve_result()), ENGINE)
    first, second = (row for _, row in run.requests.iterrows())
    assert (first["arrival_s"], second["arrival_s"]) == (0.0, 0.5)
    assert np.round(first["chunk_s"], 9).tolist() == [0.1, 0.13, 0.17]
    assert np.round([first["first_token_s"], first["finish_s"]], 9).tolist() == [0.1, 0.18]
    assert second["chunk_s"] == [pytest.approx(0.7)]
    meta = run.meta
    assert (meta.model, meta.gpu, meta.vllm, meta.num_gpu_blocks) == ("org/model", "H100", NOT_RECORDED, 1000)
    assert meta.max_model_len == 22
    assert [phase.offered_rps for phase in run.loads()] == [2.0]
    assert meta.notes[0] == "bench.json: 1 requests failed and are left out"
    assert "max_num_seqs 1024" in meta.notes[1]
    write_run(run, tmp_path / "run")
    again = read_run(tmp_path / "run")
    assert again.meta == meta
    assert again.requests["output_tokens"].tolist() == [3, 1]


def test_a_result_of_an_older_vllm_and_a_closed_loop(tmp_path):
    result = serve_result(max_concurrency=4, errors=["", "", ""], output_lens=[3, 1, 1])
    del result["latencies"]
    run = vllm_serve.read(written(tmp_path / "bench.json", result), ENGINE)
    assert run.requests["finish_s"].round(9).tolist() == [0.17, 0.7, 1.0]
    assert run.meta.notes[0].startswith("bench.json: a closed loop of 4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ttfts": None}, "no list ttfts: run `vllm bench serve` with --save-result --save-detailed"),
        ({"ttfts": [0.1]}, "lists of different lengths"),
        ({"ttfts": [0.1, "soon", 0.0]}, "request 1: ttfts: must be a number of seconds, got 'soon'"),
        ({"ttfts": [0.1, float("nan"), 0.0]}, "request 1: ttfts: must be a number of seconds, got nan"),
        ({"itls": [[0.1, None], [], []]}, "request 0: itls: must be a number of seconds, got None"),
        ({"itls": [0.1, [], []]}, "request 0: itls: must be a list of gaps"),
        ({"input_lens": [0, 2, 3]}, "request 0: input_lens: must be a whole number of at least 1, got 0"),
        ({"latencies": [0.1]}, "latencies: must be a list of 3"),
        ({"errors": ["a", "b", "c"]}, "all of its 3 requests failed"),
    ],
)
def test_results_of_bench_serve_that_cannot_be_used(tmp_path, changes, message):
    path = written(tmp_path / "bench.json", serve_result(**changes))
    with pytest.raises(SimrouteError) as raised:
        vllm_serve.read(path, ENGINE)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_a_result_without_the_size_of_the_cache(tmp_path):
    with pytest.raises(UsageError, match=r"bench\.json: does not say how many KV blocks"):
        vllm_serve.read(written(tmp_path / "bench.json", serve_result()), Described(gpu="H100", scheme="bf16"))


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not JSON"), ("[1]", "not one JSON object"), (None, "cannot read")]
)
def test_files_that_are_something_else(tmp_path, content, message):
    path = tmp_path / "file.json"
    if content is not None:
        written(path, content)
    with pytest.raises(SimrouteError, match=message):
        vllm_serve.read(path, ENGINE)


def test_a_sweep_is_a_run_for_each_server(tmp_path):
    for seqs in (8, 32):
        for rate in (1, 2):
            folder = tmp_path / f"SERVE--max_num_seqs={seqs}-BENCH--request_rate={rate}"
            for name in ("run=0.json", "warmup.json"):
                written(folder / name, serve_result(max_num_seqs=seqs, request_rate=rate, run_number=0))
            written(folder / "summary.json", [serve_result()])
            written(folder / "run=1.failure.json", {"error": "gone"})
    runs = vllm_sweep.read(tmp_path, ENGINE)
    assert {name: run.meta.max_num_seqs for name, run in runs.items()} == {"max_num_seqs=8": 8, "max_num_seqs=32": 32}
    run = runs["max_num_seqs=8"]
    assert [phase.name for phase in run.meta.phases] == ["request_rate=1 run=0", "request_rate=2 run=0"]
    assert run.requests["phase"].tolist() == [0, 0, 1, 1]


def test_a_sweep_of_one_server(tmp_path):
    written(tmp_path / "BENCH--request_rate=1" / "run=0.json", serve_result())
    assert list(vllm_sweep.read(tmp_path, ENGINE)) == [""]


def test_sweeps_without_results(tmp_path):
    with pytest.raises(CalibrationError, match="no results"):
        vllm_sweep.read(tmp_path, ENGINE)
    with pytest.raises(CalibrationError, match="not a folder"):
        vllm_sweep.read(tmp_path / "nowhere", ENGINE)
    written(tmp_path / "SERVE--a=1-BENCH--" / "run=0.json", {"completed": 3})
    with pytest.raises(SimrouteError, match="--save-detailed"):
        vllm_sweep.read(tmp_path, ENGINE)


def shapes(*requests: tuple[int, int], drafts: int = 0) -> list[dict[str, object]]:
    return [{"query_len": q, "kv_len": k, "num_draft_tokens": drafts, "chunked": False} for q, k in requests]


def test_cases_of_bench_forward(tmp_path):
    """decode=2*1@8192 and mix=8,2@6,1@100, worked by hand."""
    drafter = [{"timing_scope": "target_and_drafter"}]
    cases = [
        {"case": "decode", "requests": shapes((1, 8192), (1, 8192)), "median_us": 900.5, "ranks": [{}]},
        {"case": "mix", "requests": shapes((8, 8), (2, 6), (1, 100)), "median_us": 1500.0, "ranks": []},
        {"case": "verify", "requests": shapes((4, 100), drafts=3), "median_us": 1.0},
        {"case": "eagle", "requests": shapes((1, 9)), "median_us": 1.0, "ranks": drafter},
        {"case": "first", "requests": shapes((1, 1)), "median_us": 3.0},
    ]  # fmt: skip
    run = vllm_forward.read(written(tmp_path / "forward.json", cases), ENGINE)
    steps = run.iterations
    assert steps["service_s"].tolist() == pytest.approx([900.5e-6, 1500e-6, 3e-6])
    assert steps["decode_seqs"].tolist() == [2, 1, 0]
    assert steps["decode_context_tokens"].tolist() == [2 * 8192, 100, 0]
    assert steps["prefill_tokens"].tolist() == [0, 10, 1]
    assert steps["prefill_context_tokens"].tolist() == [0, 4, 0]
    # 8 tokens see 1..8 keys, 2 tokens after 4 see 5 and 6.
    assert steps["prefill_pairs"].tolist() == [0, 36 + 11, 1]
    assert steps["sampled_seqs"].tolist() == [0, 0, 0]
    assert run.meta.notes[1] == "forward.json: left out, for they time drafts: verify, eagle"
    write_run(run, tmp_path / "run")
    assert len(read_run(tmp_path / "run").iterations) == 3


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ({"cases": []}, "not a list of cases"),
        ([], "no case without speculative decoding"),
        ([{"case": "a", "requests": shapes((1, 9)), "median_us": 0}], r"case 0 'a': median_us: must be above 0"),
        ([{"case": "a", "requests": shapes((1, 9))}], "median_us: must be a number"),
        ([{"case": "a", "requests": [], "median_us": 1.0}], "requests: must be a list of one or more"),
        ([{"case": "a", "requests": shapes((9, 1)), "median_us": 1.0}], "kv_len: must be a whole number of at least 9"),
    ],
)
def test_cases_of_bench_forward_that_cannot_be_used(tmp_path, cases, message):
    with pytest.raises(CalibrationError, match=message):
        vllm_forward.read(written(tmp_path / "forward.json", cases), ENGINE)


SYNC = "INFO api_server.py non-default args: {'model': 'm', 'async_scheduling': False}\n"
CACHE = "INFO [kv_cache_utils.py:1148] GPU KV cache size: 16,016 tokens, 3 layers\n"


def log_line(index: int, context: tuple[int, int], decoding: int, ms: float, usage: float, engine: int = 0) -> str:
    return (
        f"(APIServer) INFO 01-02 03:04:05 [loggers.py:198] Engine {engine:03d}: Iteration({index}): "
        f"{context[0]} context requests, {context[1]} context tokens, {decoding} generation requests, {decoding} "
        f"generation tokens, iteration elapsed time: {ms:.2f} ms, GPU KV cache usage: {usage:.1f}%\n"
    )


LOG = "".join(
    [
        SYNC,
        CACHE,
        log_line(0, (1, 96), 0, 12.0, 0.6),
        log_line(1, (0, 0), 1, 5.0, 0.7),
        log_line(2, (1, 48), 1, 9.0, 1.0),  # joins the one that decodes
        log_line(3, (1, 48), 1, 9.5, 1.3),  # where its first chunk ended is not logged
        log_line(4, (0, 0), 2, 6.0, 1.4),
        log_line(5, (0, 0), 1, 5.5, 0.7),  # one has finished: what the step before held is gone
        log_line(6, (0, 0), 1, 5.5, 0.7),
    ]
)


def test_a_log_of_iterations(tmp_path):
    """1,001 blocks, 1,000 of them usable: 0.1% is one block of 16 tokens."""
    run = iteration_log.read(written(tmp_path / "log.txt", LOG), Described(gpu="H100", scheme="bf16"))
    assert run.meta.num_gpu_blocks == 1001
    assert run.meta.async_scheduling is False
    steps = run.iterations
    assert (steps["service_s"] * 1e3).round(9).tolist() == [5.0, 9.0, 5.5]
    assert steps["decode_seqs"].tolist() == [1, 1, 1]
    assert steps["decode_context_tokens"].tolist() == [7 * 16 - 8, 10 * 16 - 16 - 48, 7 * 16 - 8]
    assert steps["prefill_tokens"].tolist() == [0, 48, 0]
    assert steps["prefill_pairs"].tolist() == [0, 48 * 49 // 2, 0]
    assert steps["sampled_seqs"].tolist() == [1, 1, 1]
    assert run.meta.notes[1] == "log.txt: 4 of 7 iterations left out: contexts not known"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOG.replace(SYNC, ""), "under async scheduling .* nothing can be fitted to it"),
        (LOG.replace("False", "True"), "under async scheduling"),
        (SYNC, "no iterations: serve with --enable-logging-iteration-details"),
        (LOG + log_line(0, (0, 0), 1, 5.0, 0.7, engine=1), "lines of 2 engines"),
        (LOG.replace(", GPU KV cache usage: 0.7%", ""), "no KV cache usage"),
        (SYNC + log_line(0, (2, 9), 0, 5.0, 0.7), "none of its 1 iterations can be used"),
        (LOG.replace(CACHE, ""), "does not say how many KV blocks"),
    ],
)
def test_logs_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(SimrouteError, match=message):
        iteration_log.read(written(tmp_path / "log.txt", text), Described(gpu="H100", scheme="bf16"))


def test_a_log_whose_owner_knows_how_it_was_scheduled(tmp_path):
    path = written(tmp_path / "log.txt", LOG.replace(SYNC, ""))
    assert len(iteration_log.read(path, ENGINE, synchronous=True).iterations) == 3
    with pytest.raises(CalibrationError, match="under async"):
        iteration_log.read(written(path, LOG), ENGINE, synchronous=False)


def guidellm_request(start_s: float, **changes: object) -> dict[str, object]:
    timings = {"request_start": start_s, "first_token_iteration": start_s + 0.2, "last_token_iteration": start_s + 1.2}
    request = {
        "request_id": "x", "info": {"timings": timings}, "prompt_tokens": 50, "output_tokens": 11,
        "input_metrics": {"text_tokens": 50}, "output_metrics": {"text_tokens": 11},
    }  # fmt: skip
    return {**request, **changes}


def guidellm_report(*groups: dict[str, object]) -> dict[str, object]:
    config = {"strategy": {"type_": "poisson", "rate": 2.5}, "backend": {"model": "org/model"}}
    return {"metadata": {"version": 2}, "benchmarks": [{"config": config, "requests": group} for group in groups]}


def test_a_report_of_guidellm(tmp_path):
    old = {
        "start_time": 1004.0,
        "first_token_time": 1004.5,
        "last_token_time": 1005.0,
        "prompt_tokens": 5,
        "output_tokens": 2,
    }
    cut = guidellm_request(1002.0, output_tokens=None, info={"timings": {"request_start": 1002.0}})
    unknown = guidellm_request(1003.0, prompt_tokens=None, info={"timings": {}})
    first = {
        "successful": [guidellm_request(1000.0), guidellm_request(1001.0)],
        "incomplete": [cut],
        "errored": [unknown],
    }
    run = guidellm.read(written(tmp_path / "report.json", guidellm_report(first, {"successful": [old]})), ENGINE)
    assert [phase.name for phase in run.meta.phases] == ["0-poisson-2.5", "1-poisson-2.5"]
    assert run.meta.model == "org/model"
    requests = run.requests
    assert requests["arrival_s"].tolist() == [0.0, 1.0, 2.0, 4.0]
    assert requests["ok"].tolist() == [True, True, False, True]
    assert requests["finish_s"].round(9).fillna(-1).tolist() == [1.2, 2.2, -1, 5.0]
    assert requests["output_tokens"].tolist() == [11, 11, 1, 2]
    assert run.meta.notes[0].startswith("0-poisson-2.5: 1 requests that did not finish are left out")
    write_run(run, tmp_path / "run")
    assert read_run(tmp_path / "run").requests["error"].fillna("").tolist() == ["", "", "cut: incomplete", ""]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ([], "not a guidellm report"),
        ({"benchmarks": []}, "not a guidellm report"),
        (guidellm_report({"successful": []}), "benchmark 0: no successful requests"),
        (guidellm_report({"successful": [guidellm_request(1.0, output_tokens=0)]}), "output_tokens: must be a whole"),
        (
            guidellm_report({"successful": [{"prompt_tokens": 4, "output_tokens": 4}]}),
            "request_start: must be a number",
        ),
    ],
)
def test_reports_of_guidellm_that_cannot_be_used(tmp_path, report, message):
    with pytest.raises(CalibrationError, match=message):
        guidellm.read(written(tmp_path / "report.json", report), ENGINE)


def test_requests_alone_cannot_be_fitted(tmp_path):
    run = vllm_serve.read(written(tmp_path / "bench.json", serve_result()), ENGINE)
    with pytest.raises(CalibrationError, match=r"bench\.json: has requests but no iterations: validate on it"):
        fit([run])
