"""Kernel tables: looked up, interpolated, and refused where they cannot serve."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calibration import kernel_tables as tables_of
from simroute.calibration.ingest.op_tables import OpTables, side_weights
from simroute.errors import CalibrationError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tables_of.write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tables(folder):
    return OpTables(folder, "H100")


def test_a_measured_shape_is_taken_as_it_is(tables):
    curve = tables.gemm("bfloat16", 4096, 16384)
    assert curve.at(16) == pytest.approx(tables_of.gemm_s(16, 4096, 16384))
    assert not any("4096 x 16384" in note for note in tables.notes)


def test_between_shapes_both_sides_are_interpolated_and_that_is_noted(tables):
    curve = tables.gemm("fp8", 14336, 2048)
    assert curve.at(64) == pytest.approx(tables_of.gemm_s(64, 14336, 2048, 1))
    assert "GEMM fp8 14336 x 2048 (vllm) interpolated from 4096/16384 x 1024/4096" in tables.notes


def test_beyond_the_largest_shape_time_grows_in_proportion(tables):
    measured = tables_of.gemm_s(8, 65536, 4096)
    assert tables.gemm("bfloat16", 2 * 65536, 4096).at(8) == pytest.approx(2 * measured)
    assert side_weights(np.array([4, 8]), 16) == [(8, 2.0)]
    assert side_weights(np.array([4, 8]), 2) == [(4, 1.0)]


def test_between_and_beyond_row_counts(tables):
    curve = tables.gemm("bfloat16", 4096, 4096)
    assert curve.at(32) == pytest.approx(tables_of.gemm_s(32, 4096, 4096))
    assert curve.at(32768) == pytest.approx(2 * tables_of.gemm_s(16384, 4096, 4096))


def test_a_shape_of_which_some_row_counts_are_missing(tmp_path):
    tables_of.write_tables(tmp_path)
    path = tmp_path / "h100/gemm/vllm/0.19.0/gemm_perf.parquet"
    rows = pd.read_parquet(path)
    rows[~((rows["m"] == 64) & (rows["n"] == 4096))].to_parquet(path)
    assert OpTables(tmp_path, "H100").gemm("bfloat16", 4096, 4096).at(64) == pytest.approx(
        tables_of.gemm_s(64, 4096, 4096), rel=1e-6
    )


def test_the_gpu_is_found_by_its_device_in_its_folder_or_the_one_above(folder):
    assert OpTables(folder, "h100-sxm").folder == OpTables(folder / "h100", "H100").folder == folder / "h100"
    with pytest.raises(CalibrationError, match="no kernel tables of H200; there are those of: NVIDIA H100 80GB HBM3"):
        OpTables(folder, "H200")
    with pytest.raises(CalibrationError, match="no such folder"):
        OpTables(folder / "nowhere", "H100")
    with pytest.raises(CalibrationError, match="no GEMM table of trtllm"):
        OpTables(folder, "H100", "trtllm")


def test_what_the_tables_lack_is_said(tables):
    with pytest.raises(CalibrationError, match="no GEMM in int4; there are: bfloat16, fp8"):
        tables.gemm("int4", 4096, 4096)
    with pytest.raises(CalibrationError, match="no attention of num_heads 7, num_key_value_heads 1"):
        tables.decode_attention(7, 1, 64, "bfloat16")
    with pytest.raises(CalibrationError, match="no all-reduce of num_gpus 8"):
        tables.all_reduce(8, graph=True)
    with pytest.raises(CalibrationError, match=r"no table moe_perf\.parquet of vllm"):
        tables.experts("bfloat16", 2048, 768, 128, 8, 1)


def test_another_layout_is_refused(tmp_path):
    tables_of.write_tables(tmp_path)
    path = tmp_path / "h100/comm/vllm/0.19.0/custom_allreduce_perf.parquet"
    pd.read_parquet(path).drop(columns="backend").to_parquet(path)
    with pytest.raises(CalibrationError, match="not a table in aiconfigurator's layout: no column backend"):
        OpTables(tmp_path, "H100").all_reduce(2, graph=True)
    path.write_text("nothing")
    with pytest.raises(CalibrationError, match="cannot read the table"):
        OpTables(tmp_path, "H100").all_reduce(2, graph=False)


def test_times_that_are_not_above_zero_are_left_out_and_counted(tmp_path):
    tables_of.write_tables(tmp_path)
    path = tmp_path / "h100/comm/vllm/0.19.0/custom_allreduce_perf.parquet"
    rows = pd.read_parquet(path)
    rows.loc[0, "latency"] = 0.0
    rows.to_parquet(path)
    tables = OpTables(tmp_path, "H100")
    assert len(tables.all_reduce(2, graph=True).sizes) == 2
    assert tables.notes == ["custom_allreduce_perf.parquet: 1 rows whose latency is not above 0 are left out"]


def test_provenance_names_every_table_that_was_asked(folder):
    tables = OpTables(folder, "H100", source="someone (licence)")
    tables.gemm("fp8", 4096, 4096)
    tables.all_reduce(2, graph=True)
    gemm, comm = tables.provenance()
    assert gemm.source == "someone (licence), h100/gemm/vllm/0.19.0/gemm_perf.parquet"
    assert gemm.what == "gemm kernels of vllm 0.19.0 on H100"
    assert len(gemm.sha256) == 64
    assert comm.rows == 6
