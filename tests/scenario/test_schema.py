"""The schema editors use is the one in docs/, and the scenarios that ship are valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simroute.policy.routing import POLICIES
from simroute.scenario.loader import load
from simroute.scenario.models import Scenario
from simroute.scenario.schema import as_text, schema

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))


def test_the_published_schema_is_up_to_date():
    published = (ROOT / "docs/scenario.schema.json").read_text(encoding="utf-8")
    assert published == as_text(schema()), "regenerate: simroute schema > docs/scenario.schema.json"


def test_every_reference_in_the_schema_leads_somewhere():
    found = schema()
    text = json.dumps(found)
    for name in (part.split('"')[0] for part in text.split("#/$defs/")[1:]):
        assert name in found["$defs"]


def test_every_field_is_described():
    for definition in (schema(), *schema()["$defs"].values()):
        if definition.get("title") in {"Scenario", *(m.__name__ for m in Scenario.__mro__[1].__subclasses__())}:
            for name, field in definition["properties"].items():
                assert field.get("description"), f"{definition['title']}.{name}"


def test_the_schema_knows_the_policies_and_their_options():
    found = schema()
    assert found["properties"]["policies"]["items"]["anyOf"][0]["enum"] == list(POLICIES)
    assert {f"options of {name}" for name in POLICIES} <= found["$defs"].keys()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenarios_that_ship_are_valid_and_name_the_schema(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=../docs/scenario.schema.json\n")
    load(path, traces=[ROOT / "traces/mixed_day.parquet"])
