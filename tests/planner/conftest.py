"""What tests of what-ifs share: a tiny scenario, built once a module, and the summary of one real replay of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planner.studies import tiny_scenario

import simroute
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes on two pools, one promise: p99 TTFT of chat at most 2 s."""
    return tiny_scenario(tmp_path_factory.mktemp("scenario"))


@pytest.fixture(scope="module")
def built(path: Path) -> Built:
    return build(load(path))


@pytest.fixture(scope="module")
def template(path: Path) -> dict[str, Any]:
    """The summary of a real replay, to be bent."""
    return dict(simroute.run(path, jobs=1).results[0].summary)
