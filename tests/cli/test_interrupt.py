"""Ctrl-C before, during and after a replay: exit code 130, no traceback, whatever swallowed the interrupt."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simroute.scenario import build as scenario_build
from simroute.scenario import run as scenario_run

ROOT = Path(__file__).resolve().parents[2]
PHASES = [(scenario_build, "traffic_of"), (scenario_run, "simulate"), (scenario_run, "summarise")]


def _interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def _swallowed():
    """Ctrl-C in code that loses the exception, as native code may."""
    with contextlib.suppress(KeyboardInterrupt):
        _interrupt()


def _turned():
    """Ctrl-C in code that turns the exception into another."""
    try:
        _interrupt()
    except KeyboardInterrupt:
        raise AttributeError("partially initialized module") from None


@pytest.mark.parametrize("how", [_interrupt, _swallowed, _turned])
@pytest.mark.parametrize(("module", "name"), PHASES)
def test_ctrl_c_is_heard_in_every_phase_of_a_run(simroute, monkeypatch, how, module, name):
    usual, action = signal.getsignal(signal.SIGINT), getattr(module, name)

    def interrupted(*arguments, **named):
        how()
        return action(*arguments, **named)

    monkeypatch.setattr(module, name, interrupted)
    done = simroute("run", "tiny.yaml", "--json")
    assert done.code == 130
    assert "interrupted" in done.err
    assert "Traceback" not in done.err
    assert "assertions" not in done.err
    assert signal.getsignal(signal.SIGINT) is usual


def test_ctrl_c_before_the_replay_starts_no_simulation(simroute, monkeypatch):
    action = scenario_build.traffic_of

    def interrupted(traffic):
        _swallowed()
        return action(traffic)

    monkeypatch.setattr(scenario_build, "traffic_of", interrupted)
    monkeypatch.setattr(scenario_run, "simulate", lambda *_, **__: pytest.fail("simulated"))
    done = simroute("run", "tiny.yaml")
    assert (done.code, done.out, done.err) == (130, "", "simroute: interrupted\n")


def test_a_later_command_in_the_same_process_is_not_interrupted(simroute, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(scenario_build, "traffic_of", lambda _: _interrupt())
        assert simroute("run", "tiny.yaml").code == 130
    assert simroute("run", "tiny.yaml", "--quiet").code == 0


def test_ctrl_c_during_imports_leaves_without_a_traceback():
    script = (
        "import builtins, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from simroute.__main__ import main\n"
        "plain = builtins.__import__\n"
        "def hooked(name, *rest):\n"
        "    if name == 'typer':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(name, *rest)\n"
        "builtins.__import__ = hooked\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "simroute: interrupted\n")
