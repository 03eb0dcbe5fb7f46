"""simroute's own schema: what is written is read again, and what a hand may write wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from simroute.errors import OutputError, TraceError, UsageError
from simroute.workload.formats import read_trace, write_trace
from simroute.workload.trace import Trace

ENDINGS = ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"]


def rich_trace() -> Trace:
    rng = np.random.default_rng(5)
    rows = 300
    starts = rng.integers(-(2**62), 2**62, rows).tolist()
    return Trace.build(
        arrival_s=np.cumsum(rng.exponential(0.1, rows)),
        input_tokens=rng.integers(200, 3000, rows),
        output_tokens=rng.integers(1, 300, rows),
        request_class=rng.choice(["chat", 'a "quoted", class', "code"], rows).tolist(),
        tenant=rng.choice(["x", "Ünïcode"], rows).tolist(),
        tier="gold",
        priority=rng.integers(-2, 3, rows),
        session=rng.integers(-1, 40, rows),
        prefixes=[[*range(start, start + k % 4), *([7] if k % 3 else [])] for k, start in enumerate(starts)],
        prefix_block_tokens=32,
        name="rich",
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_again(tmp_path, ending):
    trace = rich_trace()
    path = tmp_path / f"rich.{ending}"
    write_trace(trace, path)
    again = read_trace(path)
    assert again.fingerprint() == trace.fingerprint()
    assert (again.name, again.notes, again.prefix_block_tokens) == ("rich", (), 32)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_plain_trace_too(tmp_path, ending):
    trace = Trace.build(arrival_s=[0.1, 0.2], input_tokens=[3, 4], output_tokens=[1, 1])
    write_trace(trace, tmp_path / f"t.{ending}")
    assert read_trace(tmp_path / f"t.{ending}").fingerprint() == trace.fingerprint()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_trace_gives_the_same_bytes(tmp_path, ending):
    left, right = tmp_path / f"left.{ending}", tmp_path / f"right.{ending}"
    write_trace(rich_trace(), left)
    write_trace(rich_trace(), right)
    assert left.read_bytes() == right.read_bytes()
    assert read_trace(left).fingerprint() == read_trace(right).fingerprint()


def test_only_three_columns_are_needed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,output_tokens,input_tokens\n0.5,2,3\n0.7,4,5\n")
    trace = read_trace(path)
    assert trace.input_tokens.tolist() == [3, 5]
    assert trace.class_names == ("default",)


def test_runs_of_ids_and_empty_cells(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "arrival_s,input_tokens,output_tokens,request_class,session,prefix_block_tokens,prefix_ids\n"
        "0,300,2,chat,4,64,7..9 12\n1,300,2,,,,\n2,300,2,chat,4,64,7\n"
    )
    trace = read_trace(path)
    assert trace.prefix_ids.tolist() == [7, 8, 9, 12, 7]
    assert trace.session.tolist() == [4, -1, 4]
    assert trace.class_names == ("chat", "default")
    assert trace.prefix_block_tokens == 64


@pytest.mark.parametrize("cell", ["x", "1 2.5", "9..7", "1..", "0..99999999999"])
def test_bad_ids_make_a_bad_row(tmp_path, cell):
    path = tmp_path / "t.csv"
    path.write_text(
        f"arrival_s,input_tokens,output_tokens,prefix_block_tokens,prefix_ids\n0,300,2,64,1\n1,300,2,64,{cell}\n"
    )
    if cell == "1..":
        assert len(read_trace(path)) == 2
        return
    assert read_trace(path).notes == (
        f"{path}: skipped 1 bad row: line 3 (prefix_ids: {cell!r} is no list of integers)",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,300,2,64,1\n1,300,2,32,1\n", "prefix_block_tokens: must be the same in every row, found 32 and 64"),
        ("0,300,2,,1\n", "prefix_block_tokens: must be at least 1 when there are prefix ids"),
        ("0,30,2,16,1 2 3\n", "request 0 has 3 blocks of 16 tokens, but its prompt and answer have only 32 tokens"),
    ],
)
def test_ids_that_cannot_be(tmp_path, rows, message):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,prefix_block_tokens,prefix_ids\n" + rows)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))


def test_bad_rows_of_parquet_are_numbered_from_one(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"arrival_s": [0.0, None, 2.0], "input_tokens": [1, 1, -1], "output_tokens": [1, 1, 1]})
    parquet.write_table(table, tmp_path / "t.parquet")
    trace = read_trace(tmp_path / "t.parquet")
    assert len(trace) == 1
    assert trace.notes[0].endswith(
        "skipped 2 bad rows: row 2 (arrival_s is missing), row 3 (input_tokens: -1 is below 1)"
    )


def test_json_names_that_are_no_text(tmp_path):
    path = tmp_path / "t.jsonl"
    row = '{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1, "tier": %s}\n'
    path.write_text(row % '"gold"' + row % "[]" + row % "7" + row % "null")
    trace = read_trace(path)
    assert trace.tier_names == ("7", "default", "gold")
    assert trace.notes == (f"{path}: skipped 1 bad row: line 2 (tier: [] is not text)",)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("input_tokens", ["1", "x"], r"row 2 \(input_tokens: 'x' is not a number\)"),
        ("input_tokens", [True, False], r"all 2 rows are bad: row 1 \(input_tokens: True is not a number\)"),
        ("prefix_ids", ["1", "2"], "prefix_ids: must be lists of integers, got string"),
        ("prefix_ids", [[1.5], []], "prefix_ids: must be lists of integers, got list<"),
        ("prefix_ids", [[1, None], []], "with 1 nulls"),
    ],
)
def test_parquet_columns_of_other_types(tmp_path, column, values, message):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"arrival_s": [0.0, 1.0], "input_tokens": [5, 5], "output_tokens": [1, 1], column: values}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    if column == "input_tokens" and "x" in values:
        assert re.search(message, read_trace(tmp_path / "t.parquet").notes[0])
        return
    with pytest.raises(TraceError, match=message):
        read_trace(tmp_path / "t.parquet")


def test_parquet_without_a_required_column(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"arrival_s": [0.0]}), tmp_path / "t.parquet")
    with pytest.raises(TraceError, match="column input_tokens is missing"):
        read_trace(tmp_path / "t.parquet")


def test_writing_elsewhere_is_refused(tmp_path):
    trace = rich_trace()
    with pytest.raises(UsageError, match=r"written as \.csv"):
        write_trace(trace, tmp_path / "t.xlsx")
    for ending in ENDINGS:
        with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
            write_trace(trace, tmp_path / "nowhere" / f"t.{ending}")
