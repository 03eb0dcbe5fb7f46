"""The registry: names, option checks with a path to each mistake, schemas, a documented section for every policy."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

from simroute.errors import UsageError
from simroute.policy.context import PolicyContext
from simroute.policy.routing import POLICIES, check_options, make_policy, options_schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_made_without_options_and_chooses(fleet, name):
    f = fleet(a=(2, 1.0, {"chat": 0.9}), b=(1, 2.0, {}))
    assert f.pick(f.policy(name)) in (0, 1, 2)


def test_an_unknown_policy_is_named_with_the_nearest(fleet):
    with pytest.raises(UsageError, match="unknown policy 'least_request': did you mean least_kv, least_requests"):
        fleet(a=(1, 1.0, {})).policy("least_request")
    with pytest.raises(UsageError, match="unknown policy 'zzz': known are cascade, cost_aware"):
        options_schema("zzz")


@pytest.mark.parametrize(
    ("name", "options", "path", "message"),
    [
        ("random", {"weights": [1]}, ("weights",), "unknown option 'weights'"),
        ("least_kv", {"respect_quality_flor": True}, ("respect_quality_flor",), "respect_quality_floor?"),
        (
            "quant_aware",
            {"kv_cache_usage": {"entr": 1.0, "enter": 0.9, "leave": 0.8}},
            ("kv_cache_usage", "entr"),
            "did you mean enter?",
        ),
        (
            "quant_aware",
            {"waiting": {"enter": 2, "leave": 3}},
            ("waiting",),
            "leave must not be above enter, got leave 3",
        ),
        ("quant_aware", {"occupancy": {"enter": 0.9}}, ("occupancy", "leave"), "Field required"),
        ("quant_aware", {"occupancy": {"enter": 0.9, "leave": 0}}, ("occupancy", "leave"), "greater than 0, got 0"),
        (
            "quant_aware",
            {"waiting": {"enter": float("nan"), "leave": 1}},
            ("waiting", "enter"),
            "finite number, got nan",
        ),
        ("quant_aware", {"when_no_variant": "bset"}, ("when_no_variant",), "'best' or 'reject', got 'bset'"),
        ("static_tier", {"tiers": {"gold": 3}}, ("tiers", "gold"), "valid string, got 3"),
    ],
)
def test_a_wrong_option_is_located_and_explained(fleet, name, options, path, message):
    (problem,) = check_options(name, options)
    assert problem.path == path
    assert message in problem.message
    with pytest.raises(UsageError) as caught:
        fleet(a=(1, 1.0, {})).policy(name, **options)
    assert str(caught.value) == f"policy {name}: {problem}"


def test_all_wrong_options_are_reported_at_once():
    problems = check_options("quant_aware", {"quality_bound": "max", "pool": {}})
    assert [str(p) for p in problems] == [
        "quality_bound: Input should be 'mean' or 'low', got 'max'",
        "pool: unknown option 'pool': did you mean pools?",
    ]


@pytest.mark.parametrize("name", POLICIES)
def test_options_have_a_schema_and_are_frozen(name):
    assert options_schema(name)["additionalProperties"] is False
    assert POLICIES[name].Options.model_config["frozen"] is True


@pytest.mark.parametrize(
    ("pools", "floor", "message"),
    [
        ([], {}, "needs at least one replica"),
        ([0, 1], {}, r"replica 1: its pool must be in 0..0, got 1"),
        ([0], {"chat": 1.2}, "quality floor of class 'chat': must be in 0..1, got 1.2"),
        ([0], {"chat": float("nan")}, "must be in 0..1, got nan"),
    ],
)
def test_an_impossible_context_is_refused(fleet, pools, floor, message):
    variants = fleet(a=(1, 1.0, {})).variants
    with pytest.raises(UsageError, match=message):
        make_policy("random", {}, PolicyContext(variants, pools, np.random.default_rng(0), floor))


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_and_each_of_its_options_is_documented(name):
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert section
    own = set(options_schema(name)["properties"]) - {"quality_bound", "when_no_variant", "respect_quality_floor"}
    assert all(f"`{option}`" in section for option in own)


def test_examples_of_the_page_run():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried > 20
    assert failed == 0
