"""`--junit` of run and compare: written whichever way it ends, and refused before anything runs where it cannot be."""

from __future__ import annotations

import os
import signal
from xml.etree import ElementTree

from simroute.scenario import run as scenario_run


def cases(folder, name="checks.xml"):
    return list(ElementTree.parse(folder / name).getroot()[0])


def test_a_run_writes_a_testcase_an_assertion_and_still_fails(simroute, folder):
    asked = ("--assert", "ttft_p99 < 1ms", "--assert", "least_requests: stability == STABLE")
    done = simroute("run", "tiny.yaml", "--quiet", *asked, "--junit", "made/checks.xml")
    assert done.code == 99
    failed, passed = cases(folder, "made/checks.xml")
    assert (failed.get("name"), failed.get("classname")) == ("ttft_p99 < 1ms", "simroute.run")
    assert "least_requests has ttft_p99 = " in failed.find("failure").get("message")
    assert (passed.get("classname"), len(passed)) == ("simroute.run.least_requests", 0)


def test_assertions_that_hold_leave_a_file_without_failures(simroute, folder):
    done = simroute("run", "tiny.yaml", "--quiet", "--assert", "requests.rejected == 0", "--junit", "checks.xml")
    assert done.code == 0
    assert [len(case) for case in cases(folder)] == [0]
    assert simroute("run", "tiny.yaml", "--quiet", "--junit", "checks.xml").code == 0
    assert cases(folder) == []


def test_a_comparison_writes_its_assertions_too(simroute, folder):
    small = ("--policy", "random", "--policy", "least_requests", "--seeds", "2", "--block", "0.5", "--quiet")
    done = simroute("compare", "tiny.yaml", *small, "--assert", "ttft_p99.high < -100s", "--junit", "checks.xml")
    assert done.code == 99
    (case,) = cases(folder)
    assert case.get("classname") == "simroute.compare"
    assert "least_requests has ttft_p99.high" in case.find("failure").get("message")


def test_an_interrupted_run_says_that_nothing_was_checked(simroute, folder, monkeypatch):
    action = scenario_run.simulate

    def interrupted(*arguments, **named):
        os.kill(os.getpid(), signal.SIGINT)
        return action(*arguments, **named)

    monkeypatch.setattr(scenario_run, "simulate", interrupted)
    done = simroute("run", "tiny.yaml", "--quiet", "--assert", "ttft_p99 < 1ms", "--junit", "checks.xml")
    assert done.code == 130
    (case,) = cases(folder)
    assert case.find("skipped").get("message") == "the run was interrupted"


def test_a_file_that_cannot_be_written_is_refused_before_the_run(simroute, folder, monkeypatch):
    monkeypatch.setattr(scenario_run, "simulate", None)
    (folder / "taken").mkdir()
    done = simroute("run", "tiny.yaml", "--junit", "taken")
    assert done.code == 2
    assert "--junit taken: is a folder; give a file" in done.err
    done = simroute("run", "tiny.yaml", "--junit", "trace.csv/checks.xml")
    assert done.code == 2
    assert "trace.csv" in done.err
    done = simroute("run", "tiny.yaml", "--junit", "trace.csv/deeper/checks.xml")
    assert done.err.rstrip().endswith("choose another --junit")


def test_a_dry_run_writes_nothing(simroute, folder):
    assert simroute("run", "tiny.yaml", "--dry-run", "--junit", "made/checks.xml").code == 0
    assert not (folder / "made").exists()
