"""`simroute capability`: from variants and accuracies to a matrix, and from the matrix to a scenario."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

QUICK = ("--requests", "100", "--load", "0.5")
HEADER = "model,quantization,request_class,mean,low,high,source\n"


def test_a_scenario_becomes_a_matrix_that_a_scenario_routes_on(simroute, folder):
    (folder / "own.csv").write_text(HEADER + "Llama-3.1-8B,fp8,default,0.61,0.5,0.7,own tasks\n")
    done = simroute("capability", "tiny.yaml", *QUICK, "--accuracy", "own.csv", "-o", "out/matrix.json")
    assert (done.code, done.err) == (0, "")
    assert "llama-3.1-8b-fp8-l40s" in done.out
    assert "written: out/matrix.json" in done.out
    (row,) = json.loads((folder / "out/matrix.json").read_text())["rows"]
    for key in ("variant_id", "model_id", "quantization", "gpu", "tensor_parallel", "gpu_memory_gb"):
        assert row[key]
    for key in ("ttft_p50_ms", "ttft_p99_ms", "throughput_tok_s", "cost_per_1m_tokens"):
        assert row[key] > 0
    assert row["is_stable"] is True
    assert row["accuracy"]["default"] == {
        "mean": 0.61,
        "low": 0.5,
        "high": 0.7,
        "source": "own tasks",
        "assumed": False,
    }
    routed = simroute("run", "tiny.yaml", "--json", "--set", f"quality.matrix={folder}/out/matrix.json")
    assert json.loads(routed.out)["policies"]["least_requests"]["quality"]["mean"] == 0.61


def test_the_command_may_be_named_and_json_is_all_there_is(simroute):
    named = simroute("capability", "matrix", "tiny.yaml", *QUICK, "--json")
    plain = simroute("capability", *QUICK, "--json", "tiny.yaml")
    assert named.out == plain.out
    assert json.loads(named.out)["requests"] == 100
    assert simroute("capability", "tiny.yaml", *QUICK, "--quiet").out == ""


def test_every_load_and_shape_has_a_row(simroute):
    done = simroute(
        "capability",
        "tiny.yaml",
        "--requests",
        "100",
        "--load",
        "0.2,0.4",
        "--shape",
        "64x8",
        "--shape",
        "32X4",
        "--json",
    )
    rows = json.loads(done.out)["rows"]
    assert [(r["load"], r["input_tokens"], r["output_tokens"]) for r in rows] == [
        (0.2, 64, 8),
        (0.4, 64, 8),
        (0.2, 32, 4),
        (0.4, 32, 4),
    ]


def test_results_of_the_harness_are_taken_for_the_variant_named(simroute, folder):
    scores = {"gsm8k": {"exact_match,strict-match": 0.8}, "wikitext": {"word_perplexity,none": 9.0}}
    (folder / "results.json").write_text(json.dumps({"results": scores}))
    named = ("--lm-eval", "llama-3.1-8b:FP8=results.json")
    done = simroute("capability", "tiny.yaml", *QUICK, "--json", *named)
    assert json.loads(done.out)["rows"][0]["accuracy"]["reasoning"]["mean"] == 0.8
    assert done.err == "warning: results.json: wikitext: no score between 0 and 1 in it: left out\n"
    other = simroute("capability", "tiny.yaml", *QUICK, "--json", "--lm-eval", "Qwen3-8B:fp8=results.json")
    assert "warning: --lm-eval Qwen3-8B:fp8=results.json: no such variant among the rows: not used\n" in other.err
    own = simroute("capability", "tiny.yaml", *QUICK, "--json", *named, "--task", "gsm8k=maths")
    assert json.loads(own.out)["rows"][0]["accuracy"]["maths"]["mean"] == 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--load", "0"), "--load 0: must be shares above 0 and at most 3"),
        (("--load", "half"), "--load half: must be shares"),
        (("--shape", "1024"), "--shape 1024: must be tokens in, x, tokens out"),
        (("--shape", "0x5"), "--shape 0x5: must be tokens in"),
        (("--shape", "999999x1"), "--shape 999999x1: llama-3.1-8b-fp8-l40s takes requests of at most"),
        (("-o", "matrix.txt"), "-o matrix.txt: a matrix is JSON: give a name that ends in .json"),
        (("-o", "tiny.yaml/matrix.json"), "tiny.yaml: is a file; give a directory"),
        (("--accuracy", "gone.csv"), "gone.csv: cannot be read: No such file"),
        (("--lm-eval", "gone.json"), "--lm-eval gone.json: must be MODEL:SCHEME=FILE"),
        (("--lm-eval", "Llama-3.1-8=x.json"), "must be MODEL:SCHEME, such as Llama-3.1-8B:fp8"),
        (
            ("--lm-eval", "Llama-3.1-8:fp8=x.json"),
            "unknown model 'Llama-3.1-8': did you mean Llama-3.1-70B, Llama-3.1-8B",
        ),
        (("--lm-eval", "Llama-3.1-8B:fp9=x.json"), "unknown quantization scheme 'fp9': did you mean"),
        (("--lm-eval", "Llama-3.1-8B:fp8=gone.json"), "gone.json: cannot be read"),
        (("--task", "gsm8k=chat"), "--task: says what tasks of --lm-eval stand for"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(simroute, folder, arguments, message):
    before = sorted(folder.iterdir())
    done = simroute("capability", "tiny.yaml", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("simroute: ")
    assert done.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


class Handler(BaseHTTPRequestHandler):
    """Serves one model that answers `42` to everything."""

    def do_GET(self):
        self.answer({"data": [{"id": "own"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"choices": [{"message": {"content": "42"}}]})

    def answer(self, document):
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_evaluated_and_the_table_feeds_the_matrix(simroute, folder, url):
    lines = [{"prompt": "6 x 7", "answer": 42, "request_class": "maths"}, {"prompt": "6 x 8", "answer": 48, "id": "b"}]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = ("--tasks", "own.jsonl", "--variant", "Llama-3.1-8B:fp8", "-o", "own.csv", "--replies", "replies.jsonl")
    done = simroute("capability", "evaluate", "--url", url, *asked)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("maths: 1.000 [0.270, 1.000] on 1 tasks\ndefault: 0.000 ")
    assert (folder / "own.csv").read_text().splitlines()[1] == (
        'Llama-3.1-8B,fp8,maths,1.0000,0.2698,1.0000,"exact match on 1 tasks of own.jsonl, served as own",1'
    )
    verdicts = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert [(v["task"], v["right"], v["reply"]) for v in verdicts] == [(1, True, "42"), ("b", False, "42")]
    done = simroute("capability", "tiny.yaml", *QUICK, "--json", "--accuracy", "own.csv")
    assert json.loads(done.out)["rows"][0]["accuracy"]["maths"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--url", "localhost"), "--url localhost: must be http://host:port"),
        (("--variant", "Llama-3.1-8:fp8"), "--variant Llama-3.1-8:fp8: unknown model 'Llama-3.1-8': did you mean"),
        (("--tasks", "gone.jsonl"), "gone.jsonl: cannot be read"),
        (("--tasks", "tiny.yaml"), "tiny.yaml:1: not JSON"),
        (("-o", "own.json"), "-o own.json: accuracies are a table"),
        (("--served", "other"), "unknown served model 'other': known are own"),
    ],
)
def test_a_faulty_evaluation_is_refused_and_nothing_is_written(simroute, folder, url, arguments, message):
    (folder / "own.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    given = {"--url": url, "--tasks": "own.jsonl", "--variant": "Llama-3.1-8B:fp8", "-o": "own.csv"}
    given |= {arguments[0]: arguments[1]}
    before = sorted(folder.iterdir())
    done = simroute("capability", "evaluate", *(part for pair in given.items() for part in pair))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before
