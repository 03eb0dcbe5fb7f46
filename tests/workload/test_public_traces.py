"""The readers on public traces, where they lie beside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simroute.workload.formats import read_trace, sniff_format
from simroute.workload.inspect import inspect
from simroute.workload.merge import merge

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"public traces are not at {FOLDER}")


@pytest.mark.parametrize(
    ("name", "format", "rows"),
    [
        ("AzureLLMInferenceTrace_conv.csv", "azure", 19_366),
        ("AzureLLMInferenceTrace_code.csv", "azure", 8_819),
        ("conversation_trace.jsonl", "mooncake", 12_031),
        ("synthetic_trace.jsonl", "mooncake", 3_993),
    ],
)
def test_every_row_is_read(name, format, rows):
    assert sniff_format(FOLDER / name) == format
    trace = read_trace(FOLDER / name)
    assert len(trace) == rows
    assert trace.arrival_s[0] == 0.0
    assert not any("skipped" in note or "sorted" in note for note in trace.notes)


def test_azure_conversations_as_published():
    trace = read_trace(FOLDER / "AzureLLMInferenceTrace_conv.csv")
    assert trace.arrival_s[1] == pytest.approx(4.314579, abs=1e-9)
    assert (trace.input_tokens[0], trace.output_tokens[0]) == (374, 44)
    assert trace.input_tokens.mean() == pytest.approx(1154.7, abs=0.1)
    assert trace.output_tokens.mean() == pytest.approx(211.1, abs=0.1)


def test_mooncake_ids_are_chains():
    """Every id has one predecessor and one place, so equal ids do mean equal beginnings."""
    trace = read_trace(FOLDER / "conversation_trace.jsonl")
    ids = trace.prefix_ids
    place = np.arange(len(ids)) - np.repeat(trace.prefix_offsets[:-1], trace.prefixes.lengths)
    before = np.where(place > 0, np.concatenate([[-1], ids[:-1]]), -1)
    chained = np.unique(np.stack([ids, before, place]), axis=1)
    assert chained.shape[1] == len(np.unique(ids))
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert len(np.unique(trace.arrival_s)) == len(trace)


def test_merging_keeps_the_reuse_of_each():
    conversation = read_trace(FOLDER / "conversation_trace.jsonl")
    synthetic = read_trace(FOLDER / "synthetic_trace.jsonl")
    azure = read_trace(FOLDER / "AzureLLMInferenceTrace_code.csv")
    merged = inspect(merge([conversation, azure, synthetic])).reuse
    parts = [inspect(trace).reuse for trace in (conversation, synthetic)]
    assert merged is not None
    assert merged.seen_tokens == sum(part.seen_tokens for part in parts if part is not None)
    assert merged.block_tokens == 512
