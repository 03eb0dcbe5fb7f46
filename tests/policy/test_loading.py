"""Policies of the user's own: by dotted path, by entry point, and one clear line for each way to get it wrong."""

from __future__ import annotations

import sys
from importlib import metadata
from zlib import crc32

import pytest
from policy.stage import Stage, variant

from simroute.errors import UsageError
from simroute.policy.routing import POLICIES, check_options, make_policy, options_schema, policy_class

SOURCE = '''
from pydantic import BaseModel, ConfigDict
from simroute.policy.snapshot import Decision


class Last:
    """The last replica."""

    def __init__(self, options, context):
        self.last = len(context.pool_of_replica) - 1

    def choose(self, request, snapshots):
        return Decision(self.last)


class Fixed:
    class Options(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")
        replica: int = 0

    def __init__(self, options, context):
        self.replica = options.replica

    def choose(self, request, snapshots):
        return Decision(self.replica)


class Shy:
    pass


class Odd(Last):
    Options = dict


class Broken(Last):
    def __init__(self, options, context):
        raise RuntimeError("no\\nluck")


def function(request, snapshots):
    return Decision(0)
'''


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """The name of a module that holds SOURCE, importable while the test runs."""
    name = f"own_{crc32(request.node.nodeid.encode())}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def stage():
    return Stage((3, variant("only")))


@pytest.mark.parametrize("mark", [":", "."])
def test_a_policy_is_imported_from_its_path(own, mark):
    found = stage()
    assert found.pick(found.policy(f"{own}{mark}Last")) == 2
    assert found.pick(found.policy(f"{own}{mark}Fixed", replica=1)) == 1
    assert options_schema(f"{own}{mark}Fixed")["properties"].keys() == {"replica"}


def test_a_policy_may_lie_in_the_working_directory(own, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / f"{own}_here.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path / "here")
    assert stage().pick(stage().policy(f"{own}_here:Last")) == 2
    assert sys.path[-1] == str(tmp_path / "here"), "behind everything installed"
    sys.modules.pop(f"{own}_here")


def test_its_options_are_checked_as_those_of_any_other(own):
    (problem,) = check_options(f"{own}:Fixed", {"replica": "x"})
    assert problem.path == ("replica",)
    assert str(check_options(f"{own}:Fixed", {"replicas": 1})[0]) == (
        "replicas: unknown option 'replicas': did you mean replica?"
    )
    assert str(check_options(f"{own}:Last", {"replica": 1})[0]) == (
        "replica: unknown option 'replica': known are none"
    ), "a class without Options accepts none"


def test_it_may_stand_at_either_level(own):
    assert stage().pick(stage().policy("two_level", variant="random", replica=f"{own}:Last")) == 2
    (problem,) = check_options("two_level", {"replica": f"{own}:Lost"})
    assert str(problem) == f"replica.name: policy {own}:Lost: unknown policy class of {own} 'Lost': did you mean Last?"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{own}:Lst", "unknown policy class of {own} 'Lst': did you mean Last?"),
        ("{own}:Shy", "has no method choose(request, snapshots)"),
        ("{own}:function", "must be a class with choose(request, snapshots), got function"),
        ("{own}:Odd", "its Options must be a pydantic model, got <class 'dict'>"),
        ("{own}:Broken", "cannot be made from (options, context): RuntimeError: no luck"),
        ("no_such_module_at_all:Policy", "no module named 'no_such_module_at_all': install it, or run where it lies"),
        ("simroute.no_such:Policy", "no module named 'simroute.no_such'"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(own, name, message):
    name, message = name.format(own=own), message.format(own=own)
    with pytest.raises(UsageError) as caught:
        stage().policy(name)
    assert str(caught.value) == f"policy {name}: {message}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import not_there_either\n", "no module named 'not_there_either'"),
        ("1 / 0\n", "importing {own}_bad failed: ZeroDivisionError: division by zero"),
        ("def f(:\n", "importing {own}_bad failed: SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails_is_told_in_one_line(own, tmp_path, source, message):
    (tmp_path / f"{own}_bad.py").write_text(source)
    with pytest.raises(UsageError) as caught:
        policy_class(f"{own}_bad:Last")
    assert str(caught.value).startswith(f"policy {own}_bad:Last: {message.format(own=own)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["least_requests v2", "a b:C", ":C", "module:", "1st.Policy"])
def test_what_is_no_path_is_an_unknown_policy(name):
    with pytest.raises(UsageError, match="unknown policy"):
        policy_class(name)


@pytest.fixture
def entry_points(own, monkeypatch):
    """Entry points of an imaginary package: last, broken, least_requests."""
    points = [
        metadata.EntryPoint("last", f"{own}:Last", "simroute.policies"),
        metadata.EntryPoint("broken", f"{own}_nowhere:Last", "simroute.policies"),
        metadata.EntryPoint("shy", f"{own}:Shy", "simroute.policies"),
        metadata.EntryPoint("least_requests", f"{own}:Last", "simroute.policies"),
    ]
    listed = metadata.EntryPoints(points)
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: listed.select(**wanted))


def test_installed_packages_offer_policies_by_entry_point(entry_points):
    assert stage().pick(stage().policy("last")) == 2
    assert policy_class("least_requests") is POLICIES["least_requests"], "what is built in stays"
    with pytest.raises(UsageError, match="unknown policy 'lst': did you mean last"):
        policy_class("lst")
    with pytest.raises(UsageError, match="policy shy: has no method choose"):
        policy_class("shy")
    with pytest.raises(UsageError, match=r"policy broken: importing own_\d+_nowhere:Last failed: ModuleNotFoundError"):
        make_policy("broken", {}, stage().context())


def test_labels_of_a_scenario_are_among_the_nearest_names():
    with pytest.raises(UsageError, match="unknown policy 'vk': did you mean kv"):
        policy_class("vk", ["kv"])
