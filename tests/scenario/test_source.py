"""Positions, overrides and syntax errors of scenario files, whatever they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from simroute.errors import ScenarioError, UsageError
from simroute.scenario.source import Problem, Source, dotted

TEXT = """\
name: x
pools:
  - name: cheap
    replicas: 2
  - {name: good, replicas: 3}
router:
"""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    return Source.read(path)


def test_dotted_paths():
    assert dotted(("pools", 0, "engine", "block_size")) == "pools[0].engine.block_size"
    assert dotted(()) == ""


@pytest.mark.parametrize(
    ("keys", "on_key", "expected"),
    [
        (("pools", 0, "replicas"), False, (4, 15)),
        (("pools", 0, "replicas"), True, (4, 5)),
        (("pools", 1, "replicas"), False, (5, 28)),
        (("pools", 1), False, (5, 5)),
        (("pools", 0, "gpu"), False, (3, 5)),
        (("router", "nothing", "here"), False, (6, 8)),
    ],
)
def test_positions_count_from_one_and_fall_back_to_what_encloses(source, keys, on_key, expected):
    assert source.position(Problem(keys, "", on_key)) == expected


def test_a_problem_is_one_line_with_file_line_column_and_path(source):
    assert source.locate(Problem(("pools", 1, "replicas"), "must be odd")) == (
        f"{source.path}:5:28 pools[1].replicas: must be odd"
    )


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("pools[0].replicas=4", lambda d: d["pools"][0]["replicas"] == 4),
        ("pools[good].replicas = 7", lambda d: d["pools"][1]["replicas"] == 7),
        ("router.scrape_interval_s=2.5", lambda d: d["router"] == {"scrape_interval_s": 2.5}),
        ("classes.chat.slo.ttft_s=1", lambda d: d["classes"] == {"chat": {"slo": {"ttft_s": 1}}}),
        ("policies=[random, least_kv]", lambda d: d["policies"] == ["random", "least_kv"]),
        ("name=a=b", lambda d: d["name"] == "a=b"),
        ("name=", lambda d: d["name"] is None),
    ],
)
def test_overrides_reach_their_value(source, assignment, read):
    source.override(assignment)
    assert read(source.data)


def test_a_problem_of_an_overridden_value_names_the_option(source):
    source.override("pools[good].replicas=0")
    source.override("router.scrape_interval_s=-1")
    assert source.locate(Problem(("pools", 1, "replicas"), "too few")) == "--set pools[good].replicas: too few"
    assert source.locate(Problem(("router", "scrape_interval_s"), "no")) == "--set router.scrape_interval_s: no"
    below = {"--set pools[good].replicas.more[2]: no": ("more", 2), "--set pools[good].replicas[0].x: no": (0, "x")}
    for said, keys in below.items():
        assert source.locate(Problem(("pools", 1, "replicas", *keys), "no")) == said, "the place is named once"
    assert source.locate(Problem(("pools", 0, "replicas"), "no")).startswith(f"{source.path}:4:15")


def test_overriding_a_whole_part_forgets_the_overrides_inside_it(source):
    source.override("pools[0].replicas=9")
    source.override("pools=[{name: a}]")
    assert source.locate(Problem(("pools", 0, "replicas"), "no")) == "--set pools[0].replicas: no"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("pools", "must be path=value, such as pools[0].replicas=4"),
        ("=3", "must be path=value"),
        ("pools[5].replicas=1", "pools is a list: its items are 0 to 1, got 5"),
        ("pools[goood].replicas=1", "unknown item of pools 'goood': did you mean good?"),
        ("name.first=1", "name is 'x', which has no parts: got first"),
        ("pools[0.replicas=1", "not a path"),
        ("name=[1", "value is not YAML: [1"),
    ],
)
def test_overrides_that_lead_nowhere_say_why(source, assignment, message):
    with pytest.raises(UsageError) as error:
        source.override(assignment)
    assert message in str(error.value)
    assert str(error.value).startswith("--set ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", ':2:1 duplicate key "a"'),
        ("a: [1, 2\n", ":2:1 YAML syntax: expected ',' or ']'"),
        ("\ta: 1\n", ":1:1 YAML syntax: found character"),
        ("a:\n\tb: 1\n", "indent with spaces"),
        ("a:\n  b: 1\n c: 2\n", ":3:2 YAML syntax: expected key; indent it as the lines beside it"),
        ("a: b: c\n", "or quote text that holds ': '"),
        ("a: 1\0\n", ": not YAML: unacceptable character"),
        ("name: x\n---\nname: y\n", ":2:1 YAML syntax"),
    ],
)
def test_syntax_errors_are_one_located_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as error:
        Source.read(path)
    assert message in str(error.value)
    assert len(error.value.problems) == 1


def test_a_missing_file_suggests_its_neighbours(tmp_path):
    (tmp_path / "mixed.yaml").write_text("")
    with pytest.raises(ScenarioError, match=r"no such file.*did you mean mixed\.yaml\?"):
        Source.read(tmp_path / "mixd.yaml")
    with pytest.raises(ScenarioError, match=r"the folder .* does not exist"):
        Source.read(tmp_path / "nowhere" / "mixed.yaml")


def test_what_is_not_text_is_refused(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (binary, tmp_path):
        with pytest.raises(ScenarioError, match="cannot be read as text"):
            Source.read(path)


def test_merged_yaml_keys_are_located_where_they_are_merged(tmp_path):
    path = tmp_path / "merge.yaml"
    path.write_text("base: &b {replicas: 1}\npools:\n  - <<: *b\n    name: a\n")
    source = Source.read(path)
    assert source.data["pools"][0] == {"replicas": 1, "name": "a"}
    assert source.position(Problem(("pools", 0, "replicas"), ""))[0] in (1, 3)
