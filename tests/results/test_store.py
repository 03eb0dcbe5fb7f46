"""The directory of results: what is written can be read back, and what cannot be written is said in one line."""

import math

import numpy as np
import pytest
from results.runs import make_replica, make_run, make_trace, reject

from simroute.errors import OutputError
from simroute.results import manifest, store
from simroute.results.metrics import summarise
from simroute.results.slo import Slo


def two_runs():
    trace = make_trace([0.0, 1.0, 2.0], output_tokens=[11, 1, 5], classes=["chat", "code", "chat"])
    replicas = [make_replica(0, "a"), make_replica(1, "b"), make_replica(2, "a")]
    runs = [
        make_run(trace, [0.1, 0.2, 0.3], [1.1, 0.2, 0.7], policy=policy, replicas=replicas, replica=[2, 1, 0])
        for policy in ("random", "least_kv")
    ]
    reject(runs[1], 2, reason_code=1)
    return runs


def written(directory):
    runs = two_runs()
    slo = {"default": Slo(ttft_s=1.0)}
    summaries = [summarise(run, slo, lambda _pool, _class: (0.9, 0.8, 1.0)) for run in runs]
    document = store.summary_document("mixed", 1, slo, summaries, ["two rows were skipped"])
    return store.write(directory, document, runs, {"seed": 1, "scale": 0.1234567890123}, lambda: "<html></html>")


def test_results_can_be_read_back(tmp_path):
    stored = store.load(written(tmp_path / "deep" / "out"))
    assert list(stored.summary["policies"]) == ["random", "least_kv"]
    assert stored.summary["slo"]["default"]["ttft_s"] == 1.0
    assert stored.summary["ranking"] == ["random", "least_kv"]
    assert stored.manifest == {"seed": 1, "scale": 0.1234567890123}
    assert sorted(p.name for p in stored.directory.iterdir()) == [
        "manifest.json",
        "report.html",
        "requests.parquet",
        "summary.json",
    ]


def test_requests_hold_one_row_a_policy_and_request(tmp_path):
    rows = store.load(written(tmp_path)).requests().to_pylist()
    assert len(rows) == 6
    first, one_token, last = rows[0], rows[1], rows[5]
    assert first["policy"] == "random"
    assert first["tpot_s"] == pytest.approx(0.1)
    assert (first["pool"], first["replica"], first["class"], first["status"]) == ("a", 2, "chat", "completed")
    assert one_token["tpot_s"] is None
    assert (last["policy"], last["status"], last["reason"]) == ("least_kv", "rejected", "no_variant")
    assert (last["pool"], last["replica"], last["ttft_s"], last["e2e_s"]) == (None, None, None, None)


def test_what_comes_after_the_end_is_neither_asked_nor_sent(tmp_path):
    """The run ends at 2 s: the third request never arrives, and summary and rows agree."""
    run = make_run(make_trace([0.0, 1.0, 9.0]), [0.1, 0.1, math.nan], [1.0, math.nan, math.nan], end_s=2.0)
    table = store.request_table(run)
    assert table["tries"].to_pylist() == table["attempts"].to_pylist() == [1, 1, 0]
    summary = summarise(run, {}, lambda _pool, _class: None)
    assert (summary["tries"], summary["attempts"]) == (2, 2)


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    for name in (store.SUMMARY, store.MANIFEST, store.REQUESTS):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_older_results_are_replaced(tmp_path):
    written(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    assert store.load(written(tmp_path)).summary["scenario"] == "mixed"


def test_a_file_in_the_way_is_refused_in_one_line(tmp_path):
    target = tmp_path / "out"
    target.write_text("")
    with pytest.raises(OutputError, match=r"out: is a file; give a directory") as caught:
        store.prepare(target)
    assert "\n" not in str(caught.value)


def test_an_unwritable_place_is_refused_in_one_line(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OutputError, match=r"cannot write results: Not a directory; choose another -o"):
        store.prepare(blocker / "below")


def test_a_failing_report_leaves_no_half_file(tmp_path):
    def fail():
        raise ValueError("no report")

    with pytest.raises(ValueError, match="no report"):
        store.write(tmp_path, {}, two_runs(), {}, fail)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "requests.parquet", "summary.json"]


def test_a_directory_without_results_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"summary\.json: no results to read"):
        store.load(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        store.load(tmp_path)


def test_json_refuses_nan_rather_than_writing_it():
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.json_text({"p99": math.nan})


def test_the_fingerprint_follows_the_content():
    trace, same, other = make_trace([0.0, 1.0]), make_trace([0.0, 1.0]), make_trace([0.0, 1.5])
    assert manifest.trace_sha256(trace) == manifest.trace_sha256(same)
    assert manifest.trace_sha256(trace) != manifest.trace_sha256(other)
    assert manifest.trace_sha256(trace) != manifest.trace_sha256(make_trace([0.0, 1.0], classes=["a", "a"]))


def test_versions_name_python_and_the_packages():
    found = manifest.versions()
    assert found["numpy"] == np.__version__
    assert set(found) == {"python", *manifest.PACKAGES}


def test_what_is_no_file_of_ours_is_written_to_and_not_replaced(tmp_path):
    (tmp_path / "elsewhere.xml").write_text("old")
    (tmp_path / "link.xml").symlink_to("elsewhere.xml")
    store.write_text(tmp_path / "link.xml", "new")
    assert (tmp_path / "link.xml").is_symlink()
    assert (tmp_path / "elsewhere.xml").read_text() == "new"
