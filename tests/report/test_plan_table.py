"""A plan on terminals of several widths: what to buy is legible on all of them."""

from __future__ import annotations

import io
import re

import pytest
from planner.plans import document

from simroute.report.plan.table import print_plan
from simroute.report.plan.words import fleet

GONE = "1 x small fp8 and a good many others, so that no table has room for it gone"


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(monkeypatch: pytest.MonkeyPatch, columns: int, **changes: object) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    print_plan({**document(), **changes}, file)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_fleet_and_its_policy_can_be_read(monkeypatch, columns):
    told = " ".join(printed(monkeypatch, columns).split())
    for plan in document()["frontier"] if columns < 100 else ():
        assert f"{fleet(plan)}, {plan['policy']['label']}" in told
    assert "…" not in told


def test_rows_are_numbered_where_fleets_stand_above_them(monkeypatch):
    frontier = document()["frontier"]
    lines = [line.split() for line in printed(monkeypatch, 80).splitlines()]
    assert [line[0] for line in lines if line[1:2] and line[1].startswith("$")][: len(frontier)] == [
        str(place) for place in range(1, len(frontier) + 1)
    ]


def test_a_long_loss_is_named_once_below_the_table(monkeypatch):
    binding = [{**check, "loss": GONE} for check in document()["binding"][:2]]
    told = printed(monkeypatch, 80, binding=binding)
    assert " ".join(told.split()).count(GONE) == 1
    assert told.count("(1)") == 3
