"""What a measurement is made of: the plug-in's files read back, loads drawn, engines described, servers started."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from simroute.calibration import plugin
from simroute.calibration.measure import steps as steps_module
from simroute.calibration.measure.describe import Names, describe, gpu_name, scheme_of
from simroute.calibration.measure.load import Lengths, capacity_rps, poisson
from simroute.calibration.measure.server import Launch, last_error, launched, load_time_s
from simroute.calibration.measure.steps import StepReader
from simroute.errors import CalibrationError
from simroute.hardware import catalogue

HEADER = {
    "simroute_steps": 1, "pid": 1, "boot_id": plugin.boot_id(), "monotonic_s": 50.0, "unix_s": 1050.0,
    "columns": list(plugin.COLUMNS), "engine": {"vllm": "0.32.0"},
}  # fmt: skip
ROW = [60.0, 0.5, 0.001, 1, 4, 0, 10, 0, 0, 1, 1, 1, 0, 0]


def write(path: Path, *lines: object, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(json.dumps(line) for line in lines) + end)


@pytest.fixture
def reader(tmp_path):
    return StepReader(tmp_path / "steps")


def test_steps_are_read_as_they_come_and_half_a_line_waits(reader, tmp_path):
    file = tmp_path / "steps.7"
    write(file, HEADER, ROW)
    assert reader.header()["engine"] == {"vllm": "0.32.0"}
    assert reader.read() == [ROW]
    assert reader.read() == []
    write(file, ROW, ROW[:3], end="")
    assert reader.read() == [ROW]
    with file.open("a") as more:
        more.write("\n")
    assert reader.read() == [ROW[:3]]


def test_files_of_earlier_engines_do_not_count(tmp_path):
    write(tmp_path / "steps.6", HEADER, ROW)
    reader = StepReader(tmp_path / "steps")
    with pytest.raises(CalibrationError, match="the engine wrote no steps: simroute must be installed"):
        reader.header()
    write(tmp_path / "steps.7", HEADER, ROW, ROW)
    reader.header()
    assert len(reader.read()) == 2


def test_an_engine_that_goes_on_writing_counts_from_now_on(tmp_path):
    write(tmp_path / "steps.6", HEADER, ROW, ROW)
    reader = StepReader(tmp_path / "steps")
    write(tmp_path / "steps.6", ROW)
    assert reader.header()["pid"] == 1
    assert len(reader.read()) == 1


def test_two_engines_at_once_are_refused(reader, tmp_path):
    write(tmp_path / "steps.6", HEADER, ROW)
    write(tmp_path / "steps.7", HEADER, ROW)
    with pytest.raises(CalibrationError, match=r"2 engines wrote steps \(steps.6, steps.7\): measure one alone"):
        reader.header()


@pytest.mark.parametrize("first", [[1, 2], {**HEADER, "columns": ["t_s"]}, "text"])
def test_a_file_of_something_else_is_refused(reader, tmp_path, first):
    write(tmp_path / "steps.7", first, ROW)
    with pytest.raises(CalibrationError, match="not written by this simroute's plug-in"):
        reader.header()


def test_a_damaged_file_is_refused(reader, tmp_path):
    (tmp_path / "steps.7").write_text('{"simro\n')
    with pytest.raises(CalibrationError, match="damaged"):
        reader.header()


def test_steps_of_another_machine_are_moved_by_its_wall_clock(reader, tmp_path, monkeypatch):
    class Here:
        monotonic = staticmethod(lambda: 2000.0)
        time = staticmethod(lambda: 2500.0)

    monkeypatch.setattr(steps_module, "time", Here)
    write(tmp_path / "steps.7", {**HEADER, "boot_id": "another"}, ROW)
    reader.header()
    assert reader.read()[0][0] == 60.0 + (1050.0 - 50.0) - (2500.0 - 2000.0)


def test_arrivals_are_poisson_and_repeatable():
    arrivals = poisson(20.0, 500.0, Lengths(), seed=3)
    times = np.array([a.at_s for a in arrivals])
    gaps = np.diff(times)
    assert len(arrivals) == pytest.approx(20 * 500, rel=0.04)  # four standard deviations
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
    assert times.max() < 500.0
    assert poisson(20.0, 500.0, Lengths(), seed=3) == arrivals
    assert poisson(20.0, 500.0, Lengths(), seed=4) != arrivals


def test_lengths_have_their_medians_and_bounds():
    lengths = Lengths(100.0, 50.0, max_input=300, max_output=90)
    drawn = np.array(lengths.draw(20_000, np.random.default_rng(1)))
    assert np.median(drawn, axis=0) == pytest.approx([100, 50], rel=0.03)
    assert drawn.max(axis=0).tolist() == [300, 90]
    assert drawn.min() >= 2
    assert lengths.mean_output() == pytest.approx(drawn[:, 1].mean(), rel=0.02)


def test_capacity_is_the_rate_of_a_full_batch():
    filling = np.linspace(0.0, 3.5, 10, endpoint=False)
    steady = np.arange(3.5, 10.0, 0.01)  # 100 tokens a second, 20 a request
    assert capacity_rps([*filling, *steady, 11.0], 3.5, 10.0, 20.0) == pytest.approx(5.0, rel=0.01)


ENGINE = {
    "num_gpu_blocks": 10, "block_size": 16, "max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 128,
    "dtype": "torch.bfloat16", "gpu": "NVIDIA H100 80GB HBM3", "vllm": "0.32.0", "tensor_parallel": 2,
    "model_config": {"vocab_size": 9, "_name_or_path": "/home/me/x"}, "async_scheduling": True,
}  # fmt: skip


def test_an_engine_is_described_by_what_it_tells():
    meta = describe(ENGINE, Names(), "org/Some-Model", dummy_weights=False)
    assert (meta.model, meta.gpu, meta.scheme, meta.tensor_parallel) == ("Some-Model", "H100", "bf16", 2)
    assert meta.hf_config == {"vocab_size": 9}  # where a model lies on a disk is nobody's business
    assert meta.engine_args["dtype"] == "torch.bfloat16"
    named = describe(ENGINE, Names("m", "cpu", "w4a16"), "org/Some-Model", dummy_weights=True)
    assert (named.model, named.gpu, named.scheme, named.driver) == ("m", "cpu", "w4a16", None)


def test_an_engine_that_does_not_tell_its_limits_is_one_line():
    with pytest.raises(CalibrationError, match="did not tell its block_size, max_num_seqs"):
        describe({**ENGINE, "block_size": None, "max_num_seqs": 0}, Names(), "m", dummy_weights=False)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("Tesla T4", "T4"),
        ("cpu", "cpu"),
        ("Some Future Card", "Some Future Card"),
    ],
)
def test_gpus_get_the_catalogues_names(told, name):
    assert gpu_name(told) == name


def compressed(weights: dict, activations: dict | None) -> dict:
    groups = {"group_0": {"weights": weights, "input_activations": activations}}
    return {"model_config": {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}}}


@pytest.mark.parametrize(
    ("engine", "scheme"),
    [
        ({"dtype": "torch.float16"}, "fp16"),
        ({"dtype": "torch.bfloat16"}, "bf16"),
        ({"quantization": "fp8"}, "fp8"),
        ({"model_config": {"quantization_config": {"quant_method": "awq", "bits": 4}}}, "awq-int4"),
        ({"quantization": "gptq_marlin"}, "gptq-int4"),
        ({"model_config": {"quantization_config": {"quant_method": "gptq", "bits": 8}}}, "w8a16"),
        (compressed({"num_bits": 8, "type": "float"}, {"num_bits": 8}), "fp8"),
        (compressed({"num_bits": 4, "type": "float"}, {"num_bits": 4}), "nvfp4"),
        (compressed({"num_bits": 8, "type": "int"}, {"num_bits": 8}), "w8a8-int8"),
        (compressed({"num_bits": 8, "type": "int"}, None), "w8a16"),
        (compressed({"num_bits": 4, "type": "int"}, None), "w4a16"),
    ],
)
def test_schemes_get_the_catalogues_names(engine, scheme):
    assert scheme_of(engine) == scheme
    assert catalogue.scheme(scheme).name == scheme


ROOT_CAUSE = """\
(APIServer pid=1) INFO 01-02 03:04:05 [api.py:1] starting
(Worker pid=9) ERROR 01-02 03:04:06 [executor.py:953] WorkerProc failed to start.
(Worker pid=9) ERROR 01-02 03:04:06 [executor.py:953] Traceback (most recent call last):
(Worker pid=9) ERROR 01-02 03:04:06 [executor.py:953] torch.OutOfMemoryError: CUDA out of memory. Tried 9 GiB
(EngineCore pid=5) ERROR 01-02 03:04:07 [core.py:2] Exception: WorkerProc initialization failed due to an exception
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
[1] UserWarning: leaked semaphore
"""
REFUSED = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, model type `x` is not known. [type=value_error, input_value=ArgsKwargs(()), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev
"""
USAGE = "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --no-such-flag\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (ROOT_CAUSE, "torch.OutOfMemoryError: CUDA out of memory. Tried 9 GiB"),
        (REFUSED, "Value error, model type `x` is not known."),
        (USAGE, "api_server.py: error: unrecognized arguments: --no-such-flag"),
        ("/usr/bin/python: No module named vllm\n", "/usr/bin/python: No module named vllm"),
        ("INFO all is well\n", ""),
        ("", ""),
    ],
)
def test_the_line_of_the_log_that_matters_is_found(log, said):
    assert last_error(log.splitlines()) == said


def test_the_time_of_loading_is_in_the_log():
    log = "Loading weights took 3.25 seconds\nModel loading took 14.99 GiB memory and 7.5 seconds\n"
    assert load_time_s(log) == 7.5
    assert load_time_s("nothing") is None


SHIM = """\
#!{python}
import sys
{body}
"""
REFUSES = "print('ValueError: no such model: ' + sys.argv[sys.argv.index('--model') + 1]); sys.exit(1)"
SERVES = """
import http.server, json, os
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([sys.argv[1:], os.environ["SIMROUTE_TRACE_STEPS"]]).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
port = int(sys.argv[sys.argv.index("--port") + 1])
print("Loading weights took 1.5 seconds", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Page).serve_forever()
"""


@pytest.fixture
def shim(tmp_path):
    """A stand-in for a Python with vLLM: gets the arguments that vLLM would get."""

    def make(body: str) -> str:
        path = tmp_path / "python"
        path.write_text(SHIM.format(python=sys.executable, body=body))
        path.chmod(0o755)
        return str(path)

    return make


def test_a_model_that_vllm_refuses_is_one_line(tmp_path, shim):
    launch = Launch("org/model", python=shim(REFUSES))
    with (
        pytest.raises(CalibrationError, match=r"vLLM did not start: ValueError: no such model: org/model \(the whole"),
        launched(launch, tmp_path, lambda seconds: None),
    ):
        pytest.fail("it must not start")


def test_a_python_that_is_not_there_is_one_line(tmp_path):
    launch = Launch("org/model", python=str(tmp_path / "nowhere"))
    with pytest.raises(CalibrationError, match="nowhere: cannot be run"), launched(launch, tmp_path, lambda s: None):
        pytest.fail("it must not start")
    assert not list(tmp_path.iterdir())


def test_a_server_is_started_with_its_arguments_and_stopped(tmp_path, shim):
    import urllib.request

    config = tmp_path / "small.json"
    config.write_text("{}")
    launch = Launch("small", config, dummy_weights=True, args=("--max-num-seqs", "8"), python=shim(SERVES))
    with launched(launch, tmp_path, lambda seconds: None) as server:
        assert server.alive()
        assert server.startup_s is not None
        assert server.load_s == 1.5
        args, steps = json.loads(urllib.request.urlopen(server.url).read())
        assert args[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
        assert args[-2:] == ["--max-num-seqs", "8"]
        assert {"--skip-tokenizer-init", "--load-format", "dummy"} <= set(args)
        assert args[args.index("--served-model-name") + 1] == "small"
        folder = Path(args[args.index("--model") + 1])
        assert (folder / "config.json").read_text() == "{}"
        assert steps == str(server.steps)
        pid = server.process.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
    assert not folder.exists()
    assert not server.alive()
