"""YAML by the rules of version 1.2: values, positions, merges, and what is refused, where."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simroute.yamlfile import DEEPEST, YamlError, parse, written


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"),
        ("true", True), ("False", False), ("TRUE", True), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("Null", None),
        ("1e6", 1e6), ("-2E-3", -2e-3), ("1.5e+3", 1500.0), (".5", 0.5), ("5.", 5.0), ("1_000.5", 1000.5),
        (".inf", math.inf), ("-.INF", -math.inf),
        ("12", 12), ("+3", 3), ("-0", 0), ("10_000", 10_000), ("0x1F", 31), ("0o17", 15), ("0b101", 5), ("017", 17),
        ("1:30", "1:30"), ("2026-11-22", "2026-11-22"), ("0.26.0", "0.26.0"), ("1e", "1e"), ("e5", "e5"), (".", "."),
        ("_1", "_1"), ("-", [None]), ("'12'", "12"), ('"true"', "true"),
        ("!!str 12", "12"), ("!!float 3", 3.0), ("!!int '4'", 4), ("|\n  a\n  b\n", "a\nb\n"),
        ("[1, a, {b: 2}]", [1, "a", {"b": 2}]), ("{1: a, 2.5: b}", {1: "a", 2.5: "b"}), ("\ufeffa: 1", {"a": 1}),
        ("%YAML 1.2\n---\na: yes\n", {"a": "yes"}), ("# nothing\n", None),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text, value):
    found = parse(text).value
    assert (found, type(found)) == (value, type(value))


def test_what_is_no_number_is_nan():
    assert math.isnan(parse("[.nan]").value[0])


def test_keys_are_as_written_when_asked_for():
    assert parse("{1: a, on: b, 0x10: c, ~: d}", text_keys=True).value == {"1": "a", "on": "b", "0x10": "c", "~": "d"}


TEXT = """\
a: 1
list:
  - x
  - {b: 2, c: }
empty:
"""


@pytest.mark.parametrize(
    ("keys", "on_key", "place"),
    [
        (("a",), False, (1, 4)),
        (("a",), True, (1, 1)),
        (("list",), False, (3, 3)),
        (("list", 0), False, (3, 5)),
        (("list", 1, "b"), False, (4, 9)),
        (("list", 1, "b"), True, (4, 6)),
        (("list", 1, "nowhere"), True, (4, 5)),
        (("list", 7), False, (3, 3)),
        (("empty",), False, (5, 7)),
        (("nowhere",), False, (1, 1)),
        ((), False, (1, 1)),
    ],
)
def test_every_value_has_a_place(keys, on_key, place):
    assert parse(TEXT).place_of(keys, on_key=on_key) == place


def test_places_count_characters_not_bytes():
    assert parse("{ü: µ, b: 1}").place_of(("b",)) == (1, 11)


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", 'duplicate key "a"', (3, 1)),
        ("{1: a, 1: b}", 'duplicate key "1"', (1, 8)),
        ("a: [1, 2\n", "expected ',' or ']'", (2, 1)),
        ("a: 1\n  b: 2\n", "mapping values are not allowed in this context", (2, 4)),
        ("\ta: 1\n", "found character that cannot start any token", (1, 1)),
        ("a: *b\n", "found undefined alias 'b'", (1, 4)),
        ("a: &a [1, *a]\n", "used inside itself 'a'", (1, 11)),
        ("a: 1\n---\nb: 2\n", "expected a single document, found another", (2, 1)),
        ("a: !!python/object:os.system x\n", "unknown tag tag:yaml.org,2002:python/object:os.system", (1, 4)),
        ("a: !mine {b: 1}\n", "unknown tag !mine", (1, 4)),
        ("a: !!int x\n", "not a int: x", (1, 4)),
        ("? [a, b]\n: 1\n", "a key must be plain text", (1, 3)),
        ("a: 1\n<<: 2\n", "<< merges a mapping or a list of mappings", (2, 1)),
        ("[" * 200, f"nested deeper than {DEEPEST} levels", (1, DEEPEST + 2)),
        ("9" * 10_000, "a number of 10000 digits", (1, 1)),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, problem, place):
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert (str(caught.value), caught.value.place) == (problem, place)


def test_what_is_no_text_has_no_place():
    with pytest.raises(YamlError, match="unacceptable character") as caught:
        parse("a: 1\0\n")
    assert caught.value.place is None


def test_aliases_are_copies_and_merges_fill_what_is_left_out():
    node = parse("base: &b {x: 1, y: [1]}\nother: {<<: *b, x: 2}\nboth: {<<: [{x: 3}, *b]}\nsame: *b\n")
    assert node.value["other"] == {"x": 2, "y": [1]}
    assert node.value["both"] == {"x": 3, "y": [1]}
    node.value["same"]["y"].append(2)
    node.value["other"]["y"].append(3)
    assert node.value["base"] == {"x": 1, "y": [1]}
    assert node.place_of(("other", "y")) == (2, 9)  # where it is merged
    assert node.place_of(("other", "x")) == (2, 20)
    assert parse("{'<<': {x: 1}}").value == {"<<": {"x": 1}}


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"))  # (breaks to YAML 1.1)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS,
    st.sampled_from(["yes", "1e6", "0o17", "0x1f", "1_0", "~", "2026-11-22", "12:30", ".5", "<<", "null", "a: b"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS | st.integers(), inner)))
def test_what_is_written_reads_back(value):
    assert parse(written(value)).value == value


def test_lists_of_numbers_are_written_on_one_line():
    assert written({"b": [1, 2.5], "a": [[1, 2], [3, 4]], "c": ["x"]}) == (
        "b: [1, 2.5]\na:\n- [1, 2]\n- [3, 4]\nc:\n- x\n"
    )
