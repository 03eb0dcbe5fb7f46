"""The ServeGen reader on a hand-made set of clients, and on the published ones where they lie beside the repository."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from simroute.cli.trace import app
from simroute.errors import TraceError, UsageError
from simroute.workload.formats import is_trace_folder, read_trace, servegen, sniff_format
from simroute.workload.formats.servegen import arrivals

TABLES = {
    # Windows of 600 s: 3 requests, none, 60 and 6.
    3: "0,0.005,1.0,Gamma,1.0,200.0\n600,0,0,,0,0\n1200,0.1,2.0,Gamma,0.25,99.0\n1800,0.01,1.5,Weibull,0.7,1.0\n",
    # 6 requests in each.
    12: "".join(f"{start},0.01,1.0,Weibull,1.0,100.0\n" for start in (0, 600, 1200, 1800)),
}
EARLY, LATE = {"100": 0.25, "200": 0.75}, {"7": 1.0}


def histograms(**by_start: dict[str, float] | str) -> str:
    """A dataset.json whose prompts have these histograms and whose answers are ten times as long."""

    def text(bins: dict[str, float], factor: int = 1) -> str:
        return "{" + ", ".join(f"{int(tokens) * factor}: {weight}" for tokens, weight in bins.items()) + "}"

    def fields(bins: dict[str, float] | str) -> dict[str, str]:
        if isinstance(bins, str):
            return {"input_tokens": bins, "output_tokens": bins, "reason_ratio": "{}"}
        return {"input_tokens": text(bins), "output_tokens": text(bins, 10), "reason_ratio": "{0.0: 1.0}"}

    return json.dumps({start.lstrip("t"): fields(bins) for start, bins in by_start.items()})


DATASETS = {3: histograms(t0=EARLY, t1200={}, t1800=LATE), 12: histograms(t0={"50": 1.0})}


def files(tables: dict[int, str], datasets: dict[int, str]) -> dict[str, str]:
    named = {f"chunk-{client}-trace.csv": text for client, text in tables.items()}
    return named | {f"chunk-{client}-dataset.json": text for client, text in datasets.items()}


def archive(folder: Path, tables=TABLES, datasets=DATASETS, name="set.tar.xz", inside="reason/some-model") -> Path:
    path = folder / name
    with tarfile.open(path, f"w:{name.rpartition('.')[2]}") as file:
        for member, text in files(tables, datasets).items():
            info = tarfile.TarInfo(f"{inside}/{member}")
            info.size = len(text.encode())
            file.addfile(info, io.BytesIO(text.encode()))
    return path


def folder(base: Path, tables=TABLES, datasets=DATASETS) -> Path:
    path = base / "some-model"
    path.mkdir()
    for name, text in files(tables, datasets).items():
        (path / name).write_text(text)
    return path


def of_client(trace, client: int) -> np.ndarray:
    return np.array([trace.tenant_names[code] == f"client-{client}" for code in trace.tenant_code])


def per_window(arrival_s: np.ndarray) -> list[int]:
    return np.bincount((arrival_s // 600).astype(int), minlength=4).tolist()


def test_every_window_has_the_requests_that_it_counted(tmp_path):
    path = archive(tmp_path)
    assert sniff_format(path) == "servegen"
    trace = read_trace(path)
    assert trace.name == "set"
    assert set(trace.tenant_names) == {"client-3", "client-12"}
    assert per_window(trace.arrival_s[of_client(trace, 3)]) == [3, 0, 60, 6]
    assert per_window(trace.arrival_s[of_client(trace, 12)]) == [6, 6, 6, 6]
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert trace.notes == (f"{path}: drawn, not recorded: 93 requests of 2 clients under seed 0",)


def test_lengths_are_those_of_the_latest_histogram_that_is_not_empty(tmp_path):
    trace = read_trace(archive(tmp_path))
    own = of_client(trace, 3)
    late = trace.arrival_s >= 1800
    assert set(trace.input_tokens[own & ~late].tolist()) == {100, 200}
    assert set(trace.output_tokens[own & ~late].tolist()) == {1000, 2000}
    assert set(trace.input_tokens[own & late].tolist()) == {7}
    assert set(trace.input_tokens[of_client(trace, 12)].tolist()) == {50}


def test_before_its_first_histogram_a_client_has_that_one(tmp_path):
    trace = read_trace(archive(tmp_path, datasets=DATASETS | {12: histograms(t1200={"50": 1.0})}))
    assert set(trace.input_tokens[of_client(trace, 12)].tolist()) == {50}


def test_bins_follow_their_weights_and_prompt_and_answer_are_independent(tmp_path):
    trace = read_trace(archive(tmp_path, {3: "0,20,1,Gamma,1,1\n"}, {3: histograms(t0=EARLY)}))
    long_prompt, long_answer = trace.input_tokens == 200, trace.output_tokens == 2000
    assert len(trace) == 12_000
    assert long_prompt.mean() == pytest.approx(0.75, abs=0.02)
    assert (long_prompt & long_answer).mean() == pytest.approx(0.75**2, abs=0.02)


def test_a_bin_below_one_token_is_left_out(tmp_path):
    trace = read_trace(archive(tmp_path, {3: "0,0.1,1,Gamma,1,1\n"}, {3: histograms(t0={"0": 0.9, "4": 0.1})}))
    assert set(trace.input_tokens.tolist()) == {4}


def test_a_folder_and_every_kind_of_archive_are_the_same_set(tmp_path):
    whole = read_trace(archive(tmp_path))
    path = folder(tmp_path)
    assert is_trace_folder(path)
    assert sniff_format(path) == "servegen"
    for other in (path, archive(tmp_path, name="set.tar.gz"), archive(tmp_path, inside=".")):
        assert read_trace(other).fingerprint() == whole.fingerprint()


def test_the_seed_decides(tmp_path):
    path = archive(tmp_path)
    assert read_trace(path).fingerprint() == read_trace(path, seed=0).fingerprint()
    assert read_trace(path, seed=1).fingerprint() != read_trace(path).fingerprint()


def test_a_window_is_drawn_as_in_the_whole(tmp_path):
    path = archive(tmp_path)
    part, cut = read_trace(path, window_s=(1000, 1900), seed=4), read_trace(path, seed=4).window(1000, 1900)
    assert part.arrival_s.tolist() == cut.arrival_s.tolist()
    assert part.fingerprint() == cut.fingerprint()


def test_a_client_more_changes_nothing_for_the_others(tmp_path):
    alone = read_trace(archive(tmp_path, {3: TABLES[3]}, {3: DATASETS[3]}))
    both = read_trace(archive(tmp_path, name="both.tar.xz"))
    assert both.select(of_client(both, 3)).arrival_s.tolist() == alone.arrival_s.tolist()


@pytest.mark.parametrize(
    ("pattern", "shape", "cv"),
    [("Gamma", 0.25, 2.0), ("Gamma", 4.0, 0.5), ("Weibull", 0.5, math.sqrt(5)), ("Weibull", 1.0, 1.0)],
)
def test_gaps_have_the_variation_of_the_fitted_shape(tmp_path, pattern, shape, cv):
    """Gamma: 1/sqrt(shape). Weibull of shape 1/2: Gamma(5) / Gamma(3)^2 - 1 = 5; of shape 1: exponential."""
    path = archive(tmp_path, {3: f"0,100,9,{pattern},{shape},77\n"}, {3: histograms(t0=LATE)})
    gaps = np.diff(read_trace(path).arrival_s)
    assert len(gaps) == 60_000 - 1
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


@given(st.integers(0, 50), st.floats(0.01, 1e5), st.booleans(), st.integers(0, 2**32 - 1))
def test_arrivals_are_sorted_and_inside(count, shape, weibull, seed):
    times = arrivals(np.random.default_rng(seed), count, shape, weibull)
    assert len(times) == count
    assert (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times <= 1 + 1e-12)).all()


def test_draws_that_all_underflow_are_spread_evenly():
    class Zeros:
        def standard_gamma(self, shape, size):
            return np.zeros(size)

    assert arrivals(Zeros(), 3, 0.01, False).tolist() == [0.25, 0.5, 0.75]


def test_a_rate_that_gives_a_fraction_of_a_request_is_right_in_the_mean(tmp_path):
    rows = "".join(f"{600 * k},0.0025,1,Gamma,1,1\n" for k in range(1000))
    assert len(read_trace(archive(tmp_path, {3: rows}, {3: histograms(t0=LATE)}))) == pytest.approx(1500, abs=60)


def test_clients_without_histograms_take_those_of_the_nearest_rate(tmp_path):
    tables = TABLES | {20: "0,0.008,1,Gamma,1,1\n", 30: "0,9,1,Gamma,1,1\n1200,0,0,,0,0\n"}
    path = archive(tmp_path, tables, DATASETS | {30: "{}"})
    trace = read_trace(path)
    # Mean rates over four windows: client 3 has 0.0288, client 12 0.01, client 20 0.002, client 30 2.25.
    assert set(trace.input_tokens[of_client(trace, 20)].tolist()) == {50}
    assert set(trace.input_tokens[of_client(trace, 30)].tolist()) == {100, 200}
    assert trace.notes[1] == (
        f"{path}: 2 clients have no histograms and take those of the client with the nearest rate: "
        "client-20 those of client-12, client-30 those of client-3"
    )


def test_no_histograms_at_all(tmp_path):
    path = archive(tmp_path, datasets={3: histograms(t0={})})
    with pytest.raises(TraceError, match="no client has token lengths"):
        read_trace(path)


def test_unreadable_histograms_are_named_and_the_next_ones_taken(tmp_path):
    broken = histograms(t0="{1: 2", t600="{1; 2}", t1200="{1: -2}", t1800=LATE)
    path = archive(tmp_path, datasets={3: broken, 12: "{"})
    trace = read_trace(path)
    assert set(trace.input_tokens.tolist()) == {7}
    assert "skipped 4 unreadable histograms: chunk-12-dataset.json (JSONDecodeError: " in trace.notes[1]
    assert "chunk-3-dataset.json at 0 (not a {tokens: weight} text)" in trace.notes[1]
    assert "client-12 those of client-3" in trace.notes[2]


def test_bad_rows_are_counted_and_the_first_five_named(tmp_path):
    rows = [
        "0,0.01,1,Gamma,1,1",
        "600,x,1,Gamma,1,1",
        "1.5,0.01,1,Gamma,1,1",
        "1200,-1,1,Gamma,1,1",
        "1800,0.01,1,Pareto,1,1",
        "2400,0.01,1,Gamma,0,1",
        "0,0.01,1,Gamma,1,1",
        "3000,0.01,1,Gamma,1",
        "",
        "3600,0,0,,0,0",
    ]
    path = archive(tmp_path, {3: "\n".join(rows), 12: "0,0.01,1,Gamma,1,1\n600,0,0,,0,0\n"})
    trace = read_trace(path)
    assert len(trace) == 12
    assert trace.notes[1] == (
        f"{path}: skipped 7 bad rows: line 2 (chunk-3-trace.csv: rate: 'x' is not a number), "
        "line 3 (chunk-3-trace.csv: start_s: 1.5 is not a whole number), "
        "line 4 (chunk-3-trace.csv: rate: -1 is below 0), "
        "line 5 (chunk-3-trace.csv: pattern: 'Pareto' is neither Gamma nor Weibull), "
        "line 6 (chunk-3-trace.csv: arg1: 0 is below 0.01), ..."
    )


def test_rows_that_stand_twice_and_rows_of_another_width_are_bad(tmp_path):
    path = archive(tmp_path, {3: "0,0.01,1,Gamma,1,1\n0,0.02,1,Gamma,1,1\n600,0.01\n"}, {3: histograms(t0=LATE)})
    trace = read_trace(path)
    assert len(trace) == 6
    assert (
        "line 2 (chunk-3-trace.csv: start_s: 0 stands there before), line 3 (chunk-3-trace.csv: 2 cells, not 6)"
        in (trace.notes[1])
    )


@pytest.mark.parametrize(
    ("tables", "window_s", "message"),
    [
        ({3: "x,1,1,Gamma,1,1\n"}, None, r"all 1 rows are bad: line 1 \(chunk-3-trace.csv: start_s: 'x' is not"),
        ({3: "0,0,0,,0,0\n"}, None, r"nothing arrives in 0\.\.inf s \(windows span 0\.\.600 s\)"),
        (TABLES, (2400, 3000), r"nothing arrives in 2400\.\.3000 s \(windows span 0\.\.2400 s\)"),
        ({}, None, "no chunk-N-trace.csv in it"),
    ],
)
def test_nothing_to_draw(tmp_path, tables, window_s, message):
    path = archive(tmp_path, tables)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path, "servegen", window_s=window_s)
    assert str(caught.value).startswith(str(path))


def test_an_impossible_window(tmp_path):
    with pytest.raises(UsageError, match=r"window: must be 0 <= start < stop, got 1200:900"):
        read_trace(archive(tmp_path), window_s=(1200, 900))


def test_too_much_at_once_is_refused_and_a_part_of_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(servegen, "MOST_REQUESTS", 50)
    path = archive(tmp_path)
    with pytest.raises(TraceError, match=r"93 requests are too many at once, at most 50: take a part of the time"):
        read_trace(path)
    assert len(read_trace(path, window_s=(0, 600))) == 9


def test_the_command_line_takes_a_window_and_a_seed(tmp_path):
    path, out = archive(tmp_path), tmp_path / "out.parquet"
    arguments = ["scale", str(path), str(out), "--window", "1200:1800", "--seed", "5", "--rate", "2"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "drawn, not recorded: 66 requests of 2 clients under seed 5" in done.stderr
    expected = read_trace(path, window_s=(1200, 1800), seed=5).scaled(rate=2)
    assert read_trace(out).fingerprint() == expected.fingerprint()


def test_two_sets_in_one_archive_are_ambiguous(tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir()
        (tmp_path / "two" / name / "chunk-1-trace.csv").write_text(TABLES[3])
    with pytest.raises(TraceError, match=r"holds 2 sets of clients \(a, b\): unpack it and give the folder of one"):
        read_trace(tmp_path / "two")


def test_damaged_archives(tmp_path):
    path = archive(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(path, "servegen")
    path.write_bytes(whole[:60] + bytes(40) + whole[100:])
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(path, "servegen")
    (tmp_path / "text.tar.xz").write_text("hello")
    with pytest.raises(TraceError, match="cannot be read as an archive"):
        read_trace(tmp_path / "text.tar.xz", "servegen")
    with pytest.raises(TraceError, match="not recognised as any trace format"):
        read_trace(tmp_path / "text.tar.xz")


def test_another_folder_is_no_trace(tmp_path):
    (tmp_path / "chunk-x-trace.csv").write_text("")
    assert not is_trace_folder(tmp_path)
    with pytest.raises(TraceError, match="is not a file: give a trace file, or a folder of ServeGen"):
        read_trace(tmp_path)


PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
DEEPSEEK, LARGE = PUBLISHED / "servegen_deepseek-r1.tar.xz", PUBLISHED / "servegen_m-large.tar.xz"


@pytest.mark.skipif(not DEEPSEEK.is_file(), reason=f"ServeGen's deepseek-r1 is not at {DEEPSEEK}")
def test_twenty_minutes_of_deepseek_r1():
    """The counts are sums of rate x 600 over the rows themselves."""
    trace = read_trace(DEEPSEEK, window_s=(79_200, 80_400), seed=1)
    assert len(trace) == 47_313
    assert trace.arrival_s[-1] < 1200
    assert len(trace.notes) == 1
    assert trace.output_tokens.mean() > 500


@pytest.mark.skipif(not LARGE.is_file(), reason=f"ServeGen's m-large is not at {LARGE}")
def test_ten_minutes_of_m_large_borrow_histograms():
    with pytest.raises(TraceError, match="236,892,826 requests are too many at once"):
        read_trace(LARGE)
    trace = read_trace(LARGE, window_s=(0, 600))
    assert len(trace) == 127_668
    assert len(set(trace.tenant_code.tolist())) == 43
    assert "clients have no histograms" in trace.notes[1]
