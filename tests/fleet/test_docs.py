"""docs/fleet.md names every field of a fleet's life, every event and every reason for which a request ends."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from simroute.fleet import failures, gateway, lifecycle, patience, recorder
from simroute.policy import context
from simroute.results.run import FleetEvent, Status
from simroute.scenario import fleet_models
from simroute.scenario.parts import Part

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"[\w]+", " ".join(re.findall(r"`[^`\n]+`", PAGE))))
MODELS = [m for _, m in inspect.getmembers(fleet_models, inspect.isclass) if issubclass(m, Part) and m is not Part]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_explained(model):
    assert set(model.model_fields) - NAMED == set()


def test_the_defaults_that_are_shown_are_those_of_the_models():
    """Rows that begin with one field and a number; several models may have a field of one name."""
    shown = re.findall(r"^\| `(\w+)` \| (\d[\d.]*) \|", PAGE, re.MULTILINE)
    defaults = [(name, field.default) for model in MODELS for name, field in model.model_fields.items()]
    known = {name for name, _ in defaults}
    wrong = [(name, value) for name, value in shown if name in known and (name, float(value)) not in defaults]
    assert wrong == []
    assert len([name for name, _ in shown if name in known]) > 15


def test_every_event_is_explained():
    (documented,) = re.findall(r"What happened to a place.*", inspect.getdoc(FleetEvent), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", documented)) <= NAMED


def test_every_ending_is_explained():
    reasons = {
        *(patience.TIMED_OUT, patience.LOST_INTEREST, gateway.ROUTER_DOWN, gateway.ROUTER_DIED),
        *(gateway.RATE_LIMITED, gateway.TOO_LONG, context.NO_REPLICA, recorder.NO_REASON),
        *(lifecycle.CRASHED, lifecycle.STOPPED, failures.OUTAGE, failures.PREEMPTED),
    }
    assert [reason for reason in reasons if f"`{reason}`" not in PAGE] == []
    assert {status.name.lower() for status in Status} <= NAMED
