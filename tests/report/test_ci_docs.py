"""docs/ci.md: its workflows parse, its commands' options exist, its assertions are of the grammar, its XML is ours."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from simroute.cli.assertions import parse
from simroute.report.junit import Check, junit_xml

PAGE = (Path(__file__).resolve().parents[2] / "docs/ci.md").read_text("utf-8")
WORKFLOWS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands():
    for workflow in WORKFLOWS:
        for job in yaml.safe_load(workflow)["jobs"].values():
            for step in job["steps"]:
                if "simroute " in (line := step.get("run", "").replace("\\\n", " ")) and "pip" not in line:
                    yield shlex.split(line)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=range(len(WORKFLOWS)))
def test_a_workflow_has_steps_that_use_or_run_something(workflow):
    made = yaml.safe_load(workflow)
    assert {"name", "jobs"} <= set(made)
    assert True in made or "on" in made  # (YAML 1.1 reads `on` as true)
    for job in made["jobs"].values():
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_commands_name_options_that_exist():
    from typer.main import get_command

    from simroute.cli.main import app

    seen = 0
    for name, *arguments in commands():
        assert name == "simroute"
        command, words = get_command(app), list(arguments)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if hasattr(command, "commands"):
            continue  # (a command of another room, which has tests of its own)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known
        seen += 1
    assert seen >= 3


def test_assertions_on_a_run_are_of_its_grammar():
    run = next(words for words in commands() if words[1] == "run")
    texts = [run[i + 1] for i, word in enumerate(run) if word == "--assert"]
    assert len(texts) == 3
    for text in texts:
        parse(text, ["new"])


def test_the_xml_shown_is_what_is_written():
    (shown,) = re.findall(r"^```xml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    line = "assertion failed: slo_attainment > 95%: random has slo_attainment = 85.10%"
    checks = [Check("quant_aware: ttft_p99 < 500ms", "quant_aware"), Check("slo_attainment > 95%", failures=(line,))]
    assert shown == junit_xml("simroute run", checks)
