"""The run directory: what is written comes back, and what is wrong is named."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simroute.calibration.runs import (
    ITERATION_COLUMNS,
    ITERATIONS,
    META,
    REQUEST_COLUMNS,
    REQUESTS,
    Host,
    Phase,
    Run,
    RunMeta,
    empty_table,
    read_run,
    write_run,
)
from simroute.errors import CalibrationError

PHASES = (
    Phase(name="sweep", kind="sweep", start_s=0.0, end_s=2.0),
    Phase(name="load-0.3", kind="load", start_s=2.0, end_s=9.0, offered_rps=1.5, fraction=0.3),
    Phase(name="load-0.6", kind="load", start_s=9.0, end_s=11.0, offered_rps=3.0, fraction=0.6, ok=False),
)


def meta(**changes) -> RunMeta:
    values = {
        "gpu": "cpu", "vllm": "0.32.0", "model": "small", "hf_config": {"hidden_size": 64}, "scheme": "bf16",
        "num_gpu_blocks": 100, "block_size": 16, "max_num_seqs": 8, "max_num_batched_tokens": 256,
        "max_model_len": 1024, "async_scheduling": False, "enable_prefix_caching": True, "dummy_weights": True,
        "host": Host(cpu="a cpu", cores=2), "phases": PHASES,
    }  # fmt: skip
    return RunMeta(**{**values, **changes})


def iterations(phases: list[int]) -> pd.DataFrame:
    frame = pd.DataFrame({name: np.arange(1, len(phases) + 1) for name in ITERATION_COLUMNS})
    return frame.assign(phase=phases, service_s=0.01, t_s=np.arange(len(phases)) / 7)


def requests(phases: list[int]) -> pd.DataFrame:
    rows = [
        {
            "phase": phase, "request_id": f"r{i}", "arrival_s": i / 3, "input_tokens": 5, "output_tokens": 3,
            "first_token_s": i / 3 + 0.1, "finish_s": i / 3 + 0.3, "chunk_s": [i / 3 + 0.1, i / 3 + 0.3],
            "ok": True, "error": None,
        }
        for i, phase in enumerate(phases)
    ]  # fmt: skip
    rows[-1].update(ok=False, error="HTTP 500", first_token_s=math.nan, finish_s=math.nan, chunk_s=[])
    return pd.DataFrame(rows)


@pytest.fixture
def run() -> Run:
    return Run(meta(), iterations([0, 0, 1, 2]), requests([0, 1, 1, 2]))


@pytest.fixture
def folder(run, tmp_path):
    write_run(run, tmp_path / "run")
    return tmp_path / "run"


def test_what_is_written_comes_back(run, folder):
    back = read_run(folder)
    assert back.meta == run.meta
    pd.testing.assert_frame_equal(back.iterations, run.iterations, check_dtype=False)
    assert [list(c) for c in back.requests["chunk_s"]] == [list(c) for c in run.requests["chunk_s"]]
    plain = [c for c in REQUEST_COLUMNS if c not in {"chunk_s", "error"}]
    pd.testing.assert_frame_equal(back.requests[plain], run.requests[plain], check_dtype=False)
    assert back.requests["error"].isna().tolist() == [True, True, True, False]
    assert back.requests["error"][3] == "HTTP 500"
    assert sorted(p.name for p in folder.iterdir()) == sorted([META, ITERATIONS, REQUESTS])


def test_keys_of_the_file_are_the_documented_ones(folder):
    written = json.loads((folder / META).read_text())
    assert written["schema"] == 1
    assert written["model_config"] == {"hidden_size": 64}


def test_a_run_without_rows_comes_back(tmp_path):
    write_run(Run(meta(phases=()), empty_table(ITERATION_COLUMNS), empty_table(REQUEST_COLUMNS)), tmp_path)
    back = read_run(tmp_path)
    assert (len(back.iterations), len(back.requests)) == (0, 0)


def test_phases_are_cut_by_name_and_kind(run):
    assert run.phase("load-0.3").requests["request_id"].tolist() == ["r1", "r2"]
    assert run.of_kind("load").iterations["phase"].tolist() == [1, 2]
    assert run.loads() == (PHASES[1],)
    with pytest.raises(CalibrationError, match=r"no phase 'load-0.9': has sweep, load-0.3, load-0.6"):
        run.phase("load-0.9")


def test_rows_of_an_unlisted_phase_are_of_a_write_cut_short(run, tmp_path):
    write_run(Run(meta(phases=PHASES[:1]), run.iterations, run.requests), tmp_path)
    back = read_run(tmp_path)
    assert back.iterations["phase"].tolist() == [0, 0]
    assert back.requests["phase"].tolist() == [0]


def test_a_write_over_an_older_run_replaces_it(folder, run):
    write_run(run.phase("sweep"), folder)
    assert len(read_run(folder).iterations) == 2


@pytest.mark.parametrize("file", [META, ITERATIONS, REQUESTS])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(CalibrationError, match=rf"{file}: cannot read"):
        read_run(folder)


@pytest.mark.parametrize("file", [ITERATIONS, REQUESTS])
def test_a_damaged_file_is_named(folder, file):
    (folder / file).write_bytes(b"PAR1 no")
    with pytest.raises(CalibrationError, match=rf"{file}: cannot read: .+"):
        read_run(folder)


def test_missing_columns_are_named(folder, run):
    pq.write_table(pa.Table.from_pandas(run.iterations.drop(columns=["service_s", "waiting"])), folder / ITERATIONS)
    with pytest.raises(CalibrationError, match=r"iterations.parquet: missing columns service_s, waiting$"):
        read_run(folder)


def test_a_column_of_another_type_is_named(folder, run):
    pq.write_table(pa.Table.from_pandas(run.iterations.assign(service_s="fast")), folder / ITERATIONS)
    with pytest.raises(CalibrationError, match=r"column service_s: must be double, got"):
        read_run(folder)


def test_an_empty_value_is_named(folder, run):
    pq.write_table(pa.Table.from_pandas(run.iterations.assign(t_s=[0, 1, 2, None])), folder / ITERATIONS)
    with pytest.raises(CalibrationError, match="column t_s: has 1 empty values"):
        read_run(folder)


@pytest.mark.parametrize("wrong", [0.0, -0.25])
def test_durations_are_above_zero(folder, run, wrong):
    pq.write_table(pa.Table.from_pandas(run.iterations.assign(service_s=[1, 1, wrong, wrong])), folder / ITERATIONS)
    with pytest.raises(CalibrationError, match=rf"row 2: service_s: must be above 0, got {wrong:g} \(2 such\)"):
        read_run(folder)


@pytest.mark.parametrize(
    ("column", "wrong", "said"),
    [
        ("sched_s", -1e-3, "row 3: sched_s: must be at least 0, got -0.001"),
        ("t_s", math.inf, "row 3: t_s: must be a finite number, got inf"),
        ("service_s", math.inf, "row 3: service_s: must be a finite number, got inf"),
        ("decode_seqs", -4.0, "row 3: decode_seqs: must be at least 0, got -4"),
    ],
)
def test_what_cannot_be_measured_is_named(folder, run, column, wrong, said):
    values = [*run.iterations[column].astype(float)[:3], wrong]
    pq.write_table(pa.Table.from_pandas(run.iterations.assign(**{column: values})), folder / ITERATIONS)
    with pytest.raises(CalibrationError, match=f"iterations.parquet: {said} "):
        read_run(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_gpu_blocks": 0}, "num_gpu_blocks: Input should be greater than or equal to 1"),
        ({"schema": 2}, "schema: Input should be 1"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"phases": [{"name": "x", "kind": "y", "start_s": 0, "end_s": 1}]}, "phases.0.kind: Input should be 'sweep'"),
    ],
)
def test_a_wrong_field_of_the_meta_is_named(folder, change, said):
    (folder / META).write_text(json.dumps({**json.loads((folder / META).read_text()), **change}))
    with pytest.raises(CalibrationError) as caught:
        read_run(folder)
    assert f"meta.json:{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CalibrationError, match="not a run directory"):
        read_run(tmp_path / "nothing")


def test_an_unwritable_place_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="cannot write the run"):
        write_run(run, tmp_path / "file" / "run")
