"""The schema editors use for plan files is the one in docs/, and the plans that ship name it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simroute.planner.fleets.schema import schema
from simroute.planner.fleets.spec import PlanSpec
from simroute.policy.routing import POLICIES
from simroute.scenario.schema import as_text

ROOT = Path(__file__).resolve().parents[2]
PLANS = sorted((ROOT / "scenarios/plans").glob("*.yaml"))


def test_the_published_schema_is_up_to_date():
    published = (ROOT / "docs/plan.schema.json").read_text(encoding="utf-8")
    assert published == as_text(schema()), "regenerate: simroute schema --plan > docs/plan.schema.json"


def test_every_reference_leads_somewhere_and_every_field_is_described():
    found = schema()
    for name in (part.split('"')[0] for part in json.dumps(found).split("#/$defs/")[1:]):
        assert name in found["$defs"]
    assert set(found["properties"]) == set(PlanSpec.model_fields)
    for definition in (found, found["$defs"]["CandidateSpec"], found["$defs"]["AvailabilitySpec"]):
        assert all(field.get("description") or "$ref" in field for field in definition["properties"].values())


def test_it_knows_the_policies_and_that_bare_values_stand_for_lists():
    found = schema()
    assert found["properties"]["policies"]["items"]["anyOf"][0]["enum"] == list(POLICIES)
    bare, listed = found["$defs"]["CandidateSpec"]["properties"]["tensor_parallel"]["anyOf"]
    assert (bare["type"], listed["type"], listed["items"]) == ("integer", "array", bare)
    assert "anyOf" in found["$defs"]["EngineGrid"]["properties"]["max_num_seqs"]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_that_ship_name_the_schema(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=../../docs/plan.schema.json\n")
