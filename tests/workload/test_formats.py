"""Each reader on small files made by hand, bad rows included; and what `read_trace` says of impossible files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from simroute.errors import TraceError, UsageError
from simroute.workload.formats import FORMATS, read_trace, sniff_format

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_azure_2023(tmp_path):
    rows = "2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319601,3180,8\r\n"
    path = write(tmp_path, "azure.csv", AZURE.replace("\n", "\r\n") + rows)
    trace = read_trace(path)
    assert sniff_format(path) == "azure"
    assert trace.arrival_s.tolist() == [0.0, 0.0520001]
    assert trace.input_tokens.tolist() == [4808, 3180]
    assert trace.output_tokens.tolist() == [10, 8]
    assert (trace.name, trace.notes) == ("azure", ())


def test_azure_2024_writes_a_time_zone_and_drops_zero_fractions(tmp_path):
    rows = "2024-05-10 00:00:00.009930+00:00,1,2\n2024-05-10 00:00:01+00:00,3,4\n2024-05-10T02:00:02+02:00,5,6\n"
    trace = read_trace(write(tmp_path, "a.csv", AZURE + rows))
    assert trace.arrival_s.tolist() == pytest.approx([0.0, 0.99007, 1.99007], abs=1e-9)


def test_columns_are_found_by_name(tmp_path):
    text = "NumImages,GeneratedTokens,TIMESTAMP,ContextTokens\n2,7,2024-10-15 00:00:00,900\n"
    trace = read_trace(write(tmp_path, "a.csv", text))
    assert (trace.input_tokens[0], trace.output_tokens[0]) == (900, 7)


def test_bad_rows_are_counted_and_the_first_five_named(tmp_path):
    good = "2023-11-16 18:17:03.97,10,20\n"
    bad = [
        "2023-11-16 18:17:03.97,10,x\n",
        "yesterday,10,20\n",
        "2023-11-16 18:17:03.97,nan,20\n",
        "2023-11-16 18:17:03.97,10\n",
        "2023-11-16 18:17:03.97,10,0\n",
        "2023-11-16 18:17:03.97,-4,20\n",
        "2023-11-16 18:17:03.97,1.5,20\n",
        "2023-11-16 18:17:03.97,1,2,3\n",
    ]
    path = write(tmp_path, "a.csv", AZURE + good + "\n" + "".join(bad) + good)
    trace = read_trace(path)
    assert len(trace) == 2
    assert trace.notes == (
        f"{path}: skipped 8 bad rows: line 4 (GeneratedTokens: 'x' is not a number), "
        "line 5 (TIMESTAMP: 'yesterday' is not a timestamp), line 6 (ContextTokens: 'nan' is not a number), "
        "line 7 (GeneratedTokens is missing), line 8 (GeneratedTokens: 0 is below 1), ...",
    )


def test_every_way_to_be_bad(tmp_path):
    values = {
        "-4": "-4 is below 1",
        "1.5": "1.5 is not a whole number",
        "1e30": "1e+30 is above 2^53",
        "": "'' is not a number",
    }
    for value, why in values.items():
        path = write(tmp_path, "a.csv", AZURE + f"2023-11-16 18:17:03,1,1\n2023-11-16 18:17:03,{value},1\n1,2,3,4\n")
        assert read_trace(path).notes[0].endswith(f"line 3 (ContextTokens: {why}), line 4 (4 cells under 3 columns)")


def test_one_bad_row_is_one_row(tmp_path):
    path = write(tmp_path, "a.csv", AZURE + "2023-11-16 18:17:03,1,1\n2023-11-16 18:17:03,1,0\n")
    assert read_trace(path).notes == (f"{path}: skipped 1 bad row: line 3 (GeneratedTokens: 0 is below 1)",)


def test_unsorted_arrivals_are_sorted_and_said(tmp_path):
    rows = "2023-11-16 18:17:05,1,1\n2023-11-16 18:17:03,2,1\n2023-11-16 18:17:04,3,1\n"
    trace = read_trace(write(tmp_path, "a.csv", AZURE + rows))
    assert trace.arrival_s.tolist() == [0.0, 1.0, 2.0]
    assert trace.input_tokens.tolist() == [2, 3, 1]
    assert trace.notes == ("a: 2 arrivals out of order: sorted",)


def mooncake(folder: Path, *rows: tuple) -> Path:
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    lines = (json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows)
    return write(folder, "moon.jsonl", "".join(lines))


def test_mooncake_spreads_buckets_and_keeps_hash_ids(tmp_path):
    path = mooncake(
        tmp_path,
        (0, 513, 5, [0, 1]),
        (0, 512, 5, [0]),
        (0, 10, 5, []),
        (3000, 600, 5, [0, 2]),
        (6000, 600, 5, [0, 3]),
        (6000, 600, 5),
    )
    trace = read_trace(path)
    assert trace.arrival_s.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0, 6.0, 7.5])
    assert trace.prefix_block_tokens == 512
    assert trace.prefix_ids.tolist() == [0, 1, 0, 0, 2, 0, 3]
    assert trace.prefix_offsets.tolist() == [0, 2, 3, 3, 5, 7, 7]
    assert trace.notes == (f"{path}: 5 arrivals in 2 shared timestamps: spread evenly up to the next timestamp",)


def test_mooncake_without_shared_timestamps_is_left_alone(tmp_path):
    trace = read_trace(mooncake(tmp_path, (0, 5, 5, [1]), (1500, 5, 5, [2])))
    assert (trace.arrival_s.tolist(), trace.notes) == ([0.0, 1.5], ())


def test_mooncake_in_a_single_bucket_has_nothing_to_spread_over(tmp_path):
    assert read_trace(mooncake(tmp_path, (7000, 5, 5, [1]), (7000, 5, 5, [2]))).arrival_s.tolist() == [7.0, 7.0]


def test_mooncake_bad_rows(tmp_path):
    path = mooncake(
        tmp_path,
        (0, 5, 5, [1]),
        (0, 5, 5, [1, 2]),
        (1, 5, 5, "x"),
        (2, 5, 5, [1.5]),
        (3, 5, True, [1]),
        (4, None, 5, [1]),
    )
    path.write_text(path.read_text() + "{oops\n[1]\n\n")
    trace = read_trace(path)
    assert len(trace) == 1
    (note,) = trace.notes
    assert "skipped 7 bad rows: line 2 (hash_ids: 2 ids for 5 tokens of 512 a block), " in note
    assert "line 3 (hash_ids: must be a list of integers), line 4 (hash_ids: must be a list of integers), " in note
    assert "line 5 (output_length: True is not a number), line 6 (input_length is missing), ..." in note
    path.write_text(path.read_text().splitlines()[0] + "\n{oops\n[1]\n\n")
    assert read_trace(path).notes[0].startswith(f"{path}: skipped 2 bad rows: line 2 (not JSON: ")
    assert read_trace(path).notes[0].endswith("line 3 (not a JSON object)")


def test_burstgpt_of_both_releases(tmp_path):
    first = write(tmp_path, "b1.csv", BURST + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,10,0,10,API log\n")
    trace = read_trace(first)
    assert (trace.arrival_s.tolist(), trace.session.tolist()) == ([0.0], [-1])
    assert trace.notes == (f"{first}: skipped 1 bad row: line 3 (Response tokens: 0 is below 1)",)
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    rows = "100.0,ab,43,GPT-4,9,4,13,Conversation log\n101.5,cd,2,GPT-4,3,2,5,API log\n103.0,ab,1,GPT-4,1,1,2,API log\n"
    trace = read_trace(write(tmp_path, "b2.csv", header + rows))
    assert trace.arrival_s.tolist() == [0.0, 1.5, 3.0]
    assert trace.session.tolist() == [0, 1, 0]
    assert [trace.tenant_names[code] for code in trace.tenant_code] == ["Conversation log", "API log", "API log"]


def vllm_bench(folder: Path, **changes) -> Path:
    result = {
        "date": "20260101-000000",
        "input_lens": [10, 20, 30],
        "output_lens": [1, 2, 0],
        "start_times": [101.5, 100.5, 102.0],
        "errors": ["", "", "Traceback\nConnectionError: refused"],
    }
    kept = {key: value for key, value in {**result, **changes}.items() if value is not None}
    return write(folder, "bench.json", json.dumps(kept))


def test_vllm_bench(tmp_path):
    path = vllm_bench(tmp_path)
    trace = read_trace(path)
    assert sniff_format(path) == "vllm_bench"
    assert trace.arrival_s.tolist() == [0.0, 1.0]
    assert trace.input_tokens.tolist() == [20, 10]
    assert trace.notes == (
        f"{path}: skipped 1 bad row: request 2 (failed: ConnectionError: refused)",
        "bench: 1 arrivals out of order: sorted",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_times": None}, "no list start_times: run `vllm bench serve` with --save-result --save-detailed"),
        ({"output_lens": [1]}, "lists of different lengths: start_times 3, input_lens 3, output_lens 1"),
    ],
)
def test_vllm_bench_without_details(tmp_path, changes, message):
    with pytest.raises(TraceError, match=message):
        read_trace(vllm_bench(tmp_path, **changes))


def test_vllm_bench_without_errors(tmp_path):
    assert len(read_trace(vllm_bench(tmp_path, errors=None, output_lens=[1, 2, 3]))) == 3
    assert len(read_trace(vllm_bench(tmp_path, errors=[None, "", None], output_lens=[1, 2, 3]))) == 3


def test_long_values_are_cut(tmp_path):
    path = write(tmp_path, "a.csv", AZURE + f"2023-11-16 18:17:03,1,1\n2023-11-16 18:17:03,{'x' * 999},1\n")
    assert read_trace(path).notes[0].endswith(f"line 3 (ContextTokens: '{'x' * 36}... is not a number)")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path, "a.csv", AZURE)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TraceError, match="cannot be read: Permission denied"):
        read_trace(path)


def test_a_named_format_wins_over_looking(tmp_path):
    path = write(tmp_path, "a.csv", AZURE + "2023-11-16 18:17:03,1,1\n")
    with pytest.raises(TraceError, match="column Timestamp is missing, the header has TIMESTAMP, ContextTokens"):
        read_trace(path, "burstgpt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such trace file"),
        (b"", "the file is empty"),
        (AZURE.encode(), "the file holds no requests"),
        (
            AZURE.encode() + b"x,1,1\ny,1,1\n",
            r"all 2 rows are bad: line 2 \(TIMESTAMP: 'x' is not a timestamp\), line 3",
        ),
        (b"hello\n", "not recognised as any trace format: name one of native, azure"),
        (b"\xff\xfe\x00binary", "not recognised as any trace format"),
        (AZURE.encode() + b"2023-11-16 18:17:03,1,\xff\n", "cannot be read: .*utf-8"),
        (b"PAR1 but not really", "cannot be read as Parquet"),
    ],
)
def test_impossible_files(tmp_path, content, message):
    path = tmp_path / "trace.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_broken_gzip(tmp_path):
    with pytest.raises(TraceError, match="is not a file"):
        read_trace(tmp_path)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"arrival_s,input_tokens,output_tokens\n" + b"1,2,3\n" * 5000)[:-30])
    with pytest.raises(TraceError, match="cannot be read: "):
        read_trace(path, "native")


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="unknown trace format 'moncake': did you mean mooncake"):
        read_trace(tmp_path, "moncake")


def test_every_reader_is_registered_under_its_own_name():
    assert list(FORMATS) == [reader.name for reader in FORMATS.values()]
    assert set(FORMATS) == {"native", "azure", "mooncake", "burstgpt", "vllm_bench", "servegen"}
