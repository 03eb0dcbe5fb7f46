"""The log of decisions as a table and in sum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from results.runs import make_trace

from simroute.results.regret import decision_table, joined, regret_summary
from simroute.results.store import write_tables


def decisions(chosen_s, best_s, chosen=None):
    n = len(chosen_s)
    chosen_s, best_s = np.array(chosen_s), np.array(best_s)
    replicas = np.zeros(n, dtype=np.int64) if chosen is None else np.array(chosen)
    return {
        "request": np.arange(n),
        "arrival_s": np.arange(n, dtype=np.float64),
        "chosen": replicas,
        "best": np.zeros(n, dtype=np.int64),
        "chosen_s": chosen_s,
        "best_s": best_s,
        "regret_s": chosen_s - best_s,
    }


def test_the_summary_by_hand():
    found = regret_summary(decisions([1.0, 1.05, 1.2, math.nan], [1.0, 1.0, 1.0, 1.0], [0, 0, 1, -1]))
    assert (found["decisions"], found["rejected"], found["predicted"]) == (4, 1, 3)
    assert found["mean_regret_s"] == pytest.approx(0.25 / 3)
    assert found["p99_regret_s"] == pytest.approx(np.percentile([0, 0.05, 0.2], 99))
    assert found["notable_share"] == pytest.approx(1 / 3)


def test_nothing_predicted_has_no_mean():
    found = regret_summary(decisions([math.nan], [math.nan]))
    assert found["predicted"] == 0
    assert math.isnan(found["mean_regret_s"])


def test_the_table_names_each_request_and_has_nulls_for_the_unknown(tmp_path):
    import pyarrow.parquet as pq

    trace = make_trace([0.0, 1.0, 2.0], classes=["chat", "code", "chat"], tenants=["a", "a", "b"])
    found = joined([decisions([1.0, math.nan], [0.5, math.nan], [2, -1])])
    write_tables(tmp_path / "d.parquet", [decision_table(p, trace, found) for p in ("one", "two")])
    table = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert [row["policy"] for row in table] == ["one", "one", "two", "two"]
    assert table[0] == {
        "policy": "one",
        "request": 0,
        "arrival_s": 0.0,
        "class": "chat",
        "tenant": "a",
        "tier": "default",
        "chosen": 2,
        "best": 0,
        "chosen_s": 1.0,
        "best_s": 0.5,
        "regret_s": 0.5,
    }
    assert (table[1]["class"], table[1]["chosen"], table[1]["regret_s"]) == ("code", None, None)


def test_logs_follow_one_another():
    both = joined([decisions([1.0], [0.5]), decisions([2.0, 3.0], [1.0, 1.0])])
    assert both["regret_s"].tolist() == [0.5, 1.0, 2.0]
