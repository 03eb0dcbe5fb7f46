"""What options have in common: one name means one thing, and stands in one place, in every command that replays."""

from __future__ import annotations

import os
import signal
from itertools import combinations

import typer.main

from simroute.cli.main import app

COMMANDS = ("run", "compare", "plan", "whatif")
OWN = {"--output", "--json", "--dry-run", "--assert", "--policy"}
"""Said in words of the command: what is written, what is replayed."""


def options():
    """Options by command: long name to (help, metavar, default, names), in the order of the help."""
    found = {}
    for name in COMMANDS:
        parameters = typer.main.get_command(app).commands[name].params
        found[name] = {
            each.opts[-1]: (each.help, each.metavar, each.default, each.opts)
            for each in parameters
            if each.param_type_name == "option"
        }
    return found


def test_an_option_of_several_commands_is_the_same_in_all():
    for (_, one), (other, two) in combinations(options().items(), 2):
        for name in one.keys() & two.keys() - OWN - ({"--set"} if other == "whatif" else set()):
            assert one[name] == two[name], name


def test_options_stand_in_the_same_order_in_every_command():
    for (first, one), (second, two) in combinations(options().items(), 2):
        shared = (one.keys() & two.keys()) - {"--policy", "--set"}  # (at the end of what is replayed, in whatif)
        assert [n for n in one if n in shared] == [n for n in two if n in shared], (first, second)


def test_an_interrupted_study_says_so_however_quiet(simroute, monkeypatch):
    from simroute.planner import whatif

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(whatif, "_grid", interrupted)
    done = simroute("whatif", "tiny.yaml", "--rate", "1", "--no-buy", "--quiet", "--jobs", "1", "--no-resume")
    assert done.code == 130
    assert "warning: interrupted: cells are missing" in done.err
