"""Assertions as JUnit: one testcase an assertion, counts that add up, text that no name can break."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from simroute.report.junit import Check, junit_xml


def read(text):
    root = ElementTree.fromstring(text)
    (suite,) = root
    return root, suite, list(suite)


def test_each_assertion_is_a_testcase_with_its_verdict():
    checks = [
        Check("ttft_p99 < 2s"),
        Check("gpu_busy > 50%", "random", ("random has gpu_busy = 12.00%", "another line")),
        Check("slo_attainment >= 95%", skipped="the run was interrupted"),
    ]
    root, suite, cases = read(junit_xml("simroute run", checks))
    assert root.tag == "testsuites"
    assert root.attrib == {"name": "simroute run", "tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    assert suite.attrib == root.attrib | {"time": "0"}
    assert [case.get("name") for case in cases] == ["ttft_p99 < 2s", "gpu_busy > 50%", "slo_attainment >= 95%"]
    assert [case.get("classname") for case in cases] == ["simroute.run", "simroute.run.random", "simroute.run"]
    passed, failed, skipped = cases
    assert list(passed) == []
    (failure,) = failed
    assert (failure.tag, failure.get("message")) == ("failure", "random has gpu_busy = 12.00%")
    assert failure.text == "random has gpu_busy = 12.00%\nanother line"
    (skip,) = skipped
    assert (skip.tag, skip.get("message")) == ("skipped", "the run was interrupted")


def test_no_assertion_is_an_empty_suite():
    root, suite, cases = read(junit_xml("simroute run", []))
    assert (root.get("tests"), suite.get("failures"), cases) == ("0", "0", [])


def test_what_was_not_checked_cannot_fail():
    root, _, (case,) = read(junit_xml("s", [Check("a < 1", failures=("no",), skipped="why")]))
    assert (root.get("failures"), root.get("skipped")) == ("0", "1")
    assert [each.tag for each in case] == ["skipped"]


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_any_text_gives_a_file_that_reads_back(suite, text, failures):
    written = junit_xml(suite, [Check(text, suite, tuple(failures))])
    written.encode("utf-8")
    _, _, (case,) = read(written)
    assert case.find("failure") is not None or not failures
