"""docs/results.md: its examples run, and it names every key and column that is written."""

import doctest
import re
from pathlib import Path

from results.runs import make_run, make_trace

from simroute.results.metrics import summarise
from simroute.results.store import request_table, summary_document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results.md"


def named(text):
    return set(re.findall(r"`(\w+)`", text))


def test_the_examples_run():
    unfenced = re.sub(r"^```.*$", "", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(unfenced, {}, PAGE.name, str(PAGE), 0))
    assert runner.tries > 5
    assert runner.failures == 0


def test_every_key_is_explained():
    run = make_run(make_trace([0.0, 1.0]), [0.1, 0.1], [1.0, 1.0])
    summary = summarise(run, {}, lambda _pool, _class: (0.9, 0.8, 1.0))
    document = summary_document("s", 1, {}, [summary])
    keys = {
        *document,
        *summary,
        *summary["quality"],
        *summary["requests"],
        *summary["ttft_s"],
        *summary["kv_usage"],
        *summary["fleet"],
    }
    assert keys <= named(PAGE.read_text("utf-8"))


def test_every_column_is_explained():
    run = make_run(make_trace([0.0]), [0.1], [1.0])
    assert set(request_table(run).column_names) <= named(PAGE.read_text("utf-8"))
