"""Every scenario that comes with the project runs, cut to some hundred requests: in seconds, with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from simroute.results.run import FleetRun, Status
from simroute.scenario.loader import read
from simroute.scenario.models import Scenario
from simroute.scenario.run import run

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))
MIXED_DAY = ROOT / "traces" / "mixed_day.parquet"
REQUESTS = 300
FASTER = 20.0
"""Times that traffic is quicker than in the scenario, so that few requests still meet each other."""
QUICK_START = {"node_s": 1, "image_s": 0, "weights_s": 0, "engine_s": 1}
SOON = {
    "crashes": ({"mtbf_s": 5}, "crash"),
    "outages": ({"at_s": 1, "duration_s": 5}, "lost"),
    "spot": ({"mean_life_s": 5, "notice_s": 2, "gap_s": 1}, "notice"),
    "stragglers": ({"at_s": 1, "duration_s": 5}, "slow"),
    "router": ({"at_s": 1, "down_s": 1}, "router"),
}
"""What goes wrong, brought forward, and the event by which it is known."""


def scaled_down(path: Path) -> tuple[Scenario, set[str]]:
    """The scenario with the head of each of its traces, at a higher rate, and what must happen to its fleet.

    Traces that are not part of the project give way to the mixed day; of several parts of one file the first stays.
    What is to go wrong does so at once, and replicas start in seconds.
    """
    written = yaml.safe_load(path.read_text("utf-8"))
    sources = {source["path"]: source for source in written["traffic"]["traces"]}
    there = all((path.parent / name).exists() for name in sources)
    overrides = [f"traffic.traces={json.dumps(list(sources.values()))}"] if there else []
    overrides += [f"traffic.traces[{i}].head={REQUESTS // len(sources)}" for i in range(len(sources))]
    overrides += [f"traffic.rate_scale={FASTER}", "samples=50", "replicates=0"]
    for i, pool in enumerate(written["pools"]):
        overrides.append(f"pools[{i}].startup={json.dumps(QUICK_START)}")
        overrides += [f"pools[{i}].autoscale.interval_s=1"] if "autoscale" in pool else []
    failures = written.get("failures", {})
    for what, (values, _) in SOON.items():
        for i in range(len(failures.get(what, []))):
            overrides += [f"failures.{what}[{i}].{field}={value}" for field, value in values.items()]
    expected = {event for what, (_, event) in SOON.items() if failures.get(what)}
    expected |= {"order"} if any("autoscale" in pool for pool in written["pools"]) else set()
    return read(path, overrides=overrides, traces=[] if there else [MIXED_DAY] * len(sources)).scenario, expected


def check_conserved(fleet: FleetRun) -> None:
    """Every request has ended, in one way, after it came; what replicas did is no more than what was paid."""
    assert len(fleet.trace) > 0.9 * REQUESTS
    assert not np.any(fleet.status == Status.UNFINISHED)
    completed = fleet.status == Status.COMPLETED
    assert np.array_equal(completed, ~np.isnan(fleet.finish_s))
    assert np.all(fleet.first_token_s[completed] >= fleet.arrival_s[completed])
    assert np.all(fleet.finish_s[completed] >= fleet.first_token_s[completed])
    assert np.all(fleet.replica[completed] >= 0)
    assert np.all(fleet.reason_code[~completed] >= 0)
    for totals in fleet.replicas:
        assert totals.busy_s <= totals.billed_s + 1e-6
        assert 0 <= totals.ready_s <= totals.billed_s <= fleet.end_s


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_runs_under_all_its_policies(path):
    scenario, expected = scaled_down(path)
    result = run(scenario, jobs=1)
    assert [each.summary["policy"] for each in result.results] == [policy.shown for policy in scenario.policies]
    for each in result.results:
        check_conserved(each.fleet)
        assert expected <= {event.what for event in each.fleet.events}
        requests = each.summary["requests"]
        assert requests["arrived"] == len(result.built.trace) == sum(requests.values()) - requests["arrived"]
        assert requests["completed"] > 0


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_says_what_it_is_about_and_editors_know_its_schema(path):
    text = path.read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=../docs/scenario.schema.json\n")
    assert len(yaml.safe_load(text)["description"]) > 100
