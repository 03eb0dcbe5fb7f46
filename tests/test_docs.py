"""The documentation at the front door: its commands run, its claims about commands hold."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simroute.cli.assertions import METRICS, parse
from simroute.scenario.models import EngineSpec, Scenario

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCENARIOS = (ROOT / "docs/scenarios.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def simroute(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "simroute", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def commands() -> Iterator[tuple[str, ...]]:
    """Every command of the tree, `()` being simroute itself."""
    from typer.main import get_command

    from simroute.cli.main import app

    def below(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, (*path, name))

    yield from below(get_command(app), ())


def test_the_readme_opens_with_the_two_commands():
    assert blocks(README, "sh")[:2] == [
        "pip install -e . && simroute run scenarios/mixed_traffic.yaml\n",
        "pip install -e '.[test]' && pytest\n",
    ]
    assert README.index("```sh") < 20


@pytest.mark.parametrize("line", blocks(README, "sh")[2].splitlines())
def test_commands_of_the_readme_run(line, tmp_path):
    name, *arguments = shlex.split(line)
    assert name == "simroute"
    if arguments[0] == "run":
        # Assertions are evaluated on the first requests; for the rest, reading, checking and building will do.
        arguments += ["--set", "traffic.traces[0].head=200"] if "--assert" in arguments else ["--dry-run"]
    if arguments[0] == "whatif":
        arguments += ["--base", "traffic.traces[0].head=200"]
    if "-o" in arguments:
        arguments[arguments.index("-o") + 1] = str(tmp_path / "out")
    done = simroute(*arguments)
    assert done.returncode == 0, done.stderr


def test_an_assertion_of_the_readme_fails_when_it_does_not_hold():
    (line,) = (line for line in blocks(README, "sh")[2].splitlines() if "--assert" in line)
    _, *arguments = shlex.split(line.replace("500ms", "1ms"))
    done = simroute(*arguments, "--set", "traffic.traces[0].head=200")
    assert done.returncode == 99
    assert "ttft_p99 < 1ms" in done.stderr


@pytest.mark.skipif(not os.environ.get("SIMROUTE_SLOW"), reason="takes a minute: set SIMROUTE_SLOW=1, as .ci/run does")
@pytest.mark.parametrize(
    ("place", "command"), [(0, "run scenarios/mixed_traffic.yaml"), (1, "plan scenarios/plans/first.yaml --no-resume")]
)
def test_the_readme_shows_what_its_commands_print(place, command):
    shown = blocks(README, "text")[place].splitlines()
    printed = [line.rstrip() for line in simroute(*command.split()).stdout.splitlines()]
    assert shown[-1] == "..."
    assert shown[:-1] == printed[: len(shown) - 1]


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_has_help(path):
    done = simroute(*path, "--help")
    assert done.returncode == 0
    description = done.stdout.split("\n\n")[1]
    assert len(description.split()) >= 3, f"simroute {' '.join(path)} has no help"


def test_every_command_is_documented():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    undocumented = [path for path in commands() if path and f"simroute {' '.join(path)}" not in text]
    listed = re.findall(r"simroute (\w+) ([\w|]+\|[\w|]+)", text)
    spelled = {(group, name) for group, names in listed for name in names.split("|")}
    assert [path for path in undocumented if path not in spelled] == []


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_files_named_in_contributing_exist():
    for name in re.findall(r"`((?:simroute|tests|docs|benchmarks)/[\w./]+)`", PAGES[1].read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_the_first_scenario_of_the_docs_is_valid_and_its_console_session_is_real(tmp_path):
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    (tmp_path / "scenarios/first.yaml").write_text(blocks(SCENARIOS, "yaml")[0])
    sessions = blocks(SCENARIOS, "console")[0].split("$ simroute ")[1:]
    for session in sessions:
        command, _, expected = session.partition("\n")
        done = simroute(*shlex.split(command), cwd=tmp_path)
        assert done.stdout + done.stderr == expected


def test_the_python_of_the_docs_runs(tmp_path):
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    (tmp_path / "scenarios/first.yaml").write_text(blocks(SCENARIOS, "yaml")[0].replace("46800", "43800"))
    (code,) = blocks(SCENARIOS, "python")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stderr == ""
    assert done.stdout.startswith("STABLE ")


@pytest.mark.parametrize("fragment", blocks(SCENARIOS, "yaml")[1:])
def test_every_fragment_of_the_docs_fits_the_schema(fragment):
    from simroute.yamlfile import parse

    pool = {"name": "good", "model": "Llama-3.1-8B", "gpu": "H100"}
    whole = {"name": "x", "traffic": {"traces": [{"path": "t.csv"}]}, "pools": [pool]}
    Scenario.model_validate(whole | parse(fragment).value)


def test_every_field_and_metric_is_in_the_docs():
    for name in (*Scenario.model_fields, *EngineSpec.model_fields):
        assert f"`{name}" in SCENARIOS or f"{name}:" in SCENARIOS, name
    for metric in METRICS:
        latency = re.fullmatch(r"(ttft|tpot|itl|e2e)_\w+", metric)
        assert f"`{latency[1]}_S`" in SCENARIOS if latency else f"`{metric}`" in SCENARIOS, metric
    for example in re.findall(r"--assert '([a-z_]+ .*?)'", README):
        parse(example, ["quant_aware"])


def test_help_answers_at_once():
    """Not a stopwatch: what makes help slow is importing what it does not need."""
    code = "import sys; import simroute.cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    heavy = {"numpy", "pandas", "pyarrow", "plotly", "jinja2", "scipy", "simpy", "pydantic", "rich", "yaml"}
    assert heavy & set(loaded.stdout.split()) == set()
