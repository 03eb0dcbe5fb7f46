"""Ray as an executor: a real cluster of two nodes on loopback, one of which dies half-way; and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from simroute.errors import UsageError
from simroute.planner.execution.executor import ProcessPool, executor_named
from simroute.planner.execution.ray_executor import check_identity, identity, reach

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = """
import json, os, sys, time

from ray.cluster_utils import Cluster

from simroute.errors import UsageError
from simroute.planner.execution import ray_executor
from simroute.planner.study.changes import Change
from simroute.planner.execution.executor import InProcess
from simroute.planner.execution.ray_executor import RayExecutor
from simroute.planner.split import split_run
from simroute.planner.whatif import whatif

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
executor = RayExecutor(cluster.address)


def slow(item):
    time.sleep(0.1)
    return item * item


def sometimes(item):
    if item == 2:
        raise RuntimeError("no")
    if item == 3:
        os._exit(1)
    return item


found = {}
for number, value in executor.map(slow, range(30)):
    found[number] = value
    if len(found) == 8:
        cluster.remove_node(second, allow_graceful=False)
failures = {number: str(value) for number, value in executor.map(sometimes, range(5))}
stopped = [number for number, _ in executor.map(slow, range(99), stop=lambda: True)]
change, both = Change(input=2.0), (executor, InProcess())
documents = [whatif(sys.argv[1], [change], rates=(1, 2), executor=each).document() for each in both]
windows = [split_run(sys.argv[1], windows=3, warmup_s=5.0, executor=each).summary() for each in both]
ray_executor.__version__ = "99"
try:
    check = str(RayExecutor(cluster.address))
except UsageError as error:
    check = str(error)
same = documents[0] == documents[1] and windows[0] == windows[1]
print("RESULT", json.dumps([found, failures, stopped, same, check]))
"""
SCENARIO = {
    "name": "tiny",
    "traffic": {"traces": [{"path": "trace.csv"}]},
    "classes": {"default": {"slo": {"ttft_s": 2.0}}},
    "pools": [{"name": "only", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L40S"}],
    "policies": ["round_robin"],
}


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'simroute[ray]'")
@pytest.mark.skipif(not os.environ.get("SIMROUTE_SLOW"), reason="takes a minute: set SIMROUTE_SLOW=1")
def test_two_nodes_of_which_one_dies_half_way(tmp_path):
    rows = "".join(f"{i},{100 + i},20\n" for i in range(20))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    (tmp_path / "tiny.yaml").write_text(json.dumps(SCENARIO))
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-c", CLUSTER, str(tmp_path / "tiny.yaml")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300, check=False
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")] or [done.stderr]
    found, failures, stopped, same, refused = json.loads(line.removeprefix("RESULT "))
    assert found == {str(i): i * i for i in range(30)}
    assert {number: failures[number] for number in "014"} == {"0": "0", "1": "1", "4": "4"}
    assert "RuntimeError: no" in failures["2"]
    assert "lost on the cluster" in failures["3"]
    assert stopped == []
    assert same
    assert "runs simroute 0.1.0, not 99: install the same on every node" in refused


def test_another_simroute_is_refused():
    check_identity("node", identity())
    with pytest.raises(UsageError, match=r"node 10\.0\.0\.2 runs simroute 0\.0\.1, not"):
        check_identity("10.0.0.2", {**identity(), "simroute": "0.0.1"})
    with pytest.raises(UsageError, match="another source of the same version"):
        check_identity("node", {**identity(), "source": "else"})


@pytest.mark.parametrize("address", ["127.0.0.1", "ray://:1", "host:x", ":80"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="must be HOST:PORT"):
        reach(address)


def test_an_address_where_nobody_answers_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"--ray-address 127\.0\.0\.1:1: nobody answers there") as told:
        reach("127.0.0.1:1")
    assert "\n" not in str(told.value)


def test_without_ray_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'simroute\[ray\]'"):
        executor_named("ray")


def test_executors_by_name():
    assert isinstance(executor_named("processes", jobs=2), ProcessPool)
    for arguments, said in (
        ({"name": "rays"}, "did you mean ray"),
        ({"name": "ray", "jobs": 2}, "--jobs: on a Ray cluster"),
        ({"name": "processes", "ray_address": "a:1"}, "needs --executor ray"),
    ):
        with pytest.raises(UsageError, match=said):
            executor_named(**arguments)
