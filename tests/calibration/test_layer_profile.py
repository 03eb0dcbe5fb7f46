"""A layer profile written by formula, and the steps that are composed of it."""

from __future__ import annotations

from itertools import product

import pandas as pd
import pytest

from simroute.calibration.ingest.build import from_layer_profile, named_replica
from simroute.calibration.ingest.compose import Limits, Overhead, composed, pairs, step_s
from simroute.calibration.ingest.layer_profile import ProfileKernels
from simroute.errors import CalibrationError
from simroute.hardware import catalogue
from simroute.hardware.steptime import Batch

MODEL = catalogue.model("Llama-3.2-1B")  # 16 layers
KERNELS_US = {
    "qkv_proj": 20,
    "o_proj": 10,
    "gate_up_proj": 60,
    "down_proj": 30,
    "layernorm": 3,
    "rotary_emb": 2,
    "act_fn": 4,
}
ONCE_US = {"embedding": 5, "final_layernorm": 3}
TOKENS = (1, 16, 256, 2048)
TOKEN_US = 0.1


def attention_us(chunk, start, decodes, context):
    return 10 + 0.001 * chunk * start + 0.01 * chunk + 0.002 * decodes * context


@pytest.fixture
def folder(tmp_path):
    names = KERNELS_US | ONCE_US
    rows = [(name, t, us + TOKEN_US * t) for name, us in names.items() for t in TOKENS]
    pd.DataFrame(rows, columns=["layer", "tokens", "time_us"]).to_csv(tmp_path / "dense.csv", index=False)
    rows = [(name, n, 100 + n) for name in ("lm_head", "sampler") for n in (1, 64)]
    pd.DataFrame(rows, columns=["layer", "sequences", "time_us"]).to_csv(tmp_path / "per_sequence.csv", index=False)
    grid = [
        *((0, 0, n, kv) for n, kv in product((1, 8, 64, 256), (16, 1024))),  # (256 without prefill only)
        *((c, s, 0, 0) for c, s in product((16, 2048), (0, 16, 1024))),
        *product((16, 2048), (0, 16, 1024), (1, 8, 64), (16, 1024)),
    ]
    columns = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    pd.DataFrame([(*at, attention_us(*at)) for at in grid], columns=columns).to_csv(
        tmp_path / "attention.csv", index=False
    )
    return tmp_path


def test_a_decode_step_worked_by_hand(folder):
    layer_us = sum(KERNELS_US.values()) + 3 + 8 * TOKEN_US * 8  # two norms; eight kernels in all
    once_us = sum(ONCE_US.values()) + 2 * TOKEN_US * 8
    head_us = 2 * (100 + 8)
    expected_us = 16 * (layer_us + attention_us(0, 0, 8, 500)) + once_us + head_us
    seconds = step_s(ProfileKernels(folder, MODEL), Batch(0, 0, 0, 8, 4000, 8), Overhead(0.001))
    assert seconds == pytest.approx(0.001 + expected_us * 1e-6)


def test_a_mixed_step_is_read_from_the_mixed_rows(folder):
    kernels = ProfileKernels(folder, MODEL)
    batch = Batch(1, 500, pairs(500, 200), 8, 8000, 9)
    assert kernels.attention_s(batch) == pytest.approx(16e-6 * attention_us(500, 200, 8, 1000), rel=1e-3)


def test_several_prompts_cost_what_each_does_but_for_the_start(folder):
    kernels = ProfileKernels(folder, MODEL)
    one, four = (kernels.attention_s(Batch(n, 100 * n, n * pairs(100, 0), 0, 0, n)) for n in (1, 4))
    start_s = 16e-6 * attention_us(0, 0, 1, 16)
    assert four == pytest.approx(one + 3 * (one - start_s), rel=1e-3)


def test_a_calibration_from_it(folder):
    replica = named_replica("Llama-3.2-1B", "bf16", "RTX-4090")
    calibration = from_layer_profile(folder, replica, "someone", "0.19.0", "2026-11-22")
    assert calibration.basis == "composed"
    assert [row.what for row in calibration.provenance] == [
        "layer profile, dense.csv", "layer profile, per_sequence.csv", "layer profile, attention.csv",
    ]  # fmt: skip
    with pytest.raises(CalibrationError, match="no all-reduces"):
        from_layer_profile(folder, named_replica("Llama-3.2-1B", "bf16", "RTX-4090", 2), "someone", "0.19.0")


def test_the_fit_keeps_decode_steps_true_where_mixed_ones_cost_more(folder):
    path = folder / "attention.csv"
    rows = pd.read_csv(path)
    mixed = (rows["prefill_chunk"] > 0) & (rows["n_decode"] > 0)
    rows.loc[mixed, "time_us"] *= 2
    rows.to_csv(path, index=False)
    found = composed(ProfileKernels(folder, MODEL), Limits(2048, 64, 40_000, 4096), Overhead(0.0))
    assert found.step.decode_context_token_ns == pytest.approx(16 * 2, rel=0.05)


def test_an_incomplete_profile_is_refused(folder):
    path = folder / "attention.csv"
    rows = pd.read_csv(path)
    rows.iloc[:-1].to_csv(path, index=False)
    with pytest.raises(CalibrationError, match="1 combinations are missing"):
        ProfileKernels(folder, MODEL).attention_s(Batch(0, 0, 0, 1, 100, 1))
    rows.drop(columns="kv_decode").to_csv(path, index=False)
    with pytest.raises(CalibrationError, match="no column kv_decode"):
        ProfileKernels(folder, MODEL).attention_s(Batch(0, 0, 0, 1, 100, 1))
    dense = pd.read_csv(folder / "dense.csv")
    dense[dense["layer"] != "act_fn"].to_csv(folder / "dense.csv", index=False)
    with pytest.raises(CalibrationError, match="no layer 'act_fn'"):
        ProfileKernels(folder, MODEL)
    dense.assign(time_us=0.0).to_csv(folder / "dense.csv", index=False)
    with pytest.raises(CalibrationError, match="times must be above 0"):
        ProfileKernels(folder, MODEL)
    with pytest.raises(CalibrationError, match="cannot read the profile"):
        ProfileKernels(folder / "nowhere", MODEL)
