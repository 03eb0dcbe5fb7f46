"""Random cases against the executable reference of vLLM's scheduler, which shares no code with ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from engine.cases import FULL_CONFIG, ordered, random_case

from simroute.engine.stepper import run_case

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "vllm" / "ref_sched.py"
CASES = 300
BATCH = 25

pytestmark = pytest.mark.skipif(not REFERENCE.is_file(), reason=f"the reference scheduler is not at {REFERENCE}")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_scheduler", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decisions(records: Iterator[dict[str, Any]], keys: set[str]) -> list[dict[str, Any]]:
    """The records' values under `keys`; a step that schedules nothing may leave out its blocks."""
    return [ordered({key: ({"blocks": {}} | record)[key] for key in keys}) for record in records]


@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_random_cases_agree_step_by_step(first, reference):
    keys = {*reference.KEYS, "blocks"}
    for seed in range(first, first + BATCH):
        case = random_case(seed)
        mine = decisions(run_case(case), keys)
        theirs = decisions(reference.run(case), keys)
        differing = next(
            (step for step, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None
        )
        assert differing is None, f"seed {seed}, step {differing}: {mine[differing]} is not {theirs[differing]}"
        assert len(mine) == len(theirs), f"seed {seed}"


def test_the_cases_reach_every_setting_and_trouble():
    cases = [random_case(seed) for seed in range(CASES)]
    for setting in FULL_CONFIG:
        assert len({case["config"][setting] for case in cases}) > 1, setting
    preemptions = hits = 0
    for case in cases[:40]:
        for record in run_case(case):
            preemptions += len(record["preempted"])
            hits += sum(record["admitted"].values())
    assert preemptions > 200
    assert hits > 2000
