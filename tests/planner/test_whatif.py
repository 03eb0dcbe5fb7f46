"""What if: breaks are found, changes do what they say, what to buy is what helps, and nothing is lost on the way."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner.studies import Oracle, bent

import simroute
from simroute.cli.main import main
from simroute.errors import UsageError
from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import Failure, InProcess
from simroute.planner.study.cells import At
from simroute.planner.study.changes import Change, Loss, changes_in
from simroute.planner.study.spot import SpotShare
from simroute.planner.whatif import whatif
from simroute.scenario.loader import load


def test_it_is_public():
    assert simroute.whatif is whatif


@given(limit_at=st.floats(0.6, 7.9), precision=st.floats(0.02, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_break_is_found_to_the_precision(built, template, limit_at, precision):
    oracle = Oracle(lambda at: bent(template, 2.0 * at.rate / limit_at))
    found = whatif(built, rates=(0.5, 1, 2, 4, 8), precision=precision, buy=False, executor=oracle).document()
    row = found["variations"][0]
    assert row["holds_to"] <= limit_at < row["breaks_at"] + 1e-9
    assert row["breaks_at"] <= row["holds_to"] * (1 + precision)
    assert len(oracle.asked) == len(set(oracle.asked))


def test_what_never_breaks_and_what_never_holds(built, template):
    never = whatif(built, rates=(1, 2), executor=Oracle(lambda at: bent(template, 0.1))).document()
    assert (never["variations"][0]["holds_to"], never["variations"][0]["breaks_at"]) == (2.0, None)
    assert never["buy"]["steps"] == []
    assert "up to 2 times today's traffic, the highest rate that was tried" in never["answer"]
    always = whatif(built, rates=(1, 2), buy=False, executor=Oracle(lambda at: bent(template, 9.0))).document()
    assert (always["variations"][0]["holds_to"], always["variations"][0]["breaks_at"]) == (None, 1.0)
    assert "misses its targets at 1 times today's traffic" in always["answer"]


def test_beyond_an_overloaded_rate_nothing_is_replayed(built, template, monkeypatch):
    monkeypatch.setattr("simroute.planner.whatif.cpus", lambda: 1)
    oracle = Oracle(lambda at: bent(template, 1.0, stability="OVERLOADED" if at.rate >= 2 else "STABLE"))
    found = whatif(built, rates=(1, 2, 4, 8), buy=False, precision=1.0, executor=oracle).document()
    assert [at.rate for at in oracle.asked] == [1.0, 2.0]
    cells = found["variations"][0]["cells"]
    assert [cell["rate"] for cell in cells] == [1.0, 2.0, 4.0, 8.0]
    assert [cell["skipped"] for cell in cells[2:]] == ["OVERLOADED at 2", "OVERLOADED at 2"]
    assert found["variations"][0]["breaks_first"][0]["constraint"] == "stability"


def test_a_target_that_holds_again_is_said(built, template):
    oracle = Oracle(lambda at: bent(template, 9.0 if 1.5 < at.rate < 3 else 0.1))
    row = whatif(built, rates=(1, 2, 4), buy=False, executor=oracle).document()["variations"][0]
    assert 1.0 <= row["holds_to"] < row["breaks_at"] <= 2.0
    ttft = next(each for each in row["breaks"] if each["constraint"] == "ttft_s")
    assert ttft["holds_again_at"] == [4.0]


def test_only_the_promised_is_a_target(built, template):
    row = whatif(built, rates=(1,), executor=Oracle(lambda at: bent(template, 0.1))).document()["variations"][0]
    assert [(each["class"], each["constraint"]) for each in row["breaks"]] == [
        ("chat", "ttft_s"),
        ("chat", "slo_attainment"),
    ]


def test_the_cheapest_replica_that_helps_is_bought(built, template):
    def cell(at: At) -> dict[str, Any]:
        usd = 100 + 30 * at.bought.count("one") + 50 * at.bought.count("two")
        enough = at.rate < 2 or bool(at.bought)
        return bent(template, 1.0 if enough else 9.0, attained=1.0 if enough else 0.9, usd=usd)

    buy = whatif(built, rates=(1, 2, 4), executor=Oracle(cell)).document()["buy"]
    assert (buy["rate"], buy["replicas"], buy["usd_per_month"], buy["meets"]) == (2.0, {"one": 1}, 30.0, True)
    assert [offer["pool"] for offer in buy["steps"][0]["offers"]] == ["one", "two"]


def test_where_one_is_not_enough_the_best_gain_for_the_money_is_bought_first(built, template):
    def cell(at: At) -> dict[str, Any]:
        one, two = at.bought.count("one"), at.bought.count("two")
        attained = min(0.5 + 0.1 * one + 0.3 * two, 1.0) if at.rate > 1 else 1.0  # 0.1 for 30 USD, 0.3 for 50
        return bent(template, 1.0, attained=attained, usd=100 + 30 * one + 50 * two)

    buy = whatif(built, rates=(1, 2), executor=Oracle(cell)).document()["buy"]
    assert [step["best"] for step in buy["steps"]] == ["two", "two"]
    assert (buy["replicas"], buy["usd_per_month"], buy["meets"]) == ({"two": 2}, 100.0, True)


def test_a_cell_that_fails_is_told_beside_the_others(built, template):
    oracle = Oracle(lambda at: Failure("out of memory", 2) if at.rate == 2 else bent(template, 0.1))
    found = whatif(built, rates=(1, 2, 4), executor=oracle)
    row = found.document()["variations"][0]
    assert [cell for cell in row["cells"] if "failed" in cell] == [{"rate": 2.0, "failed": "out of memory"}]
    assert [cell["rate"] for cell in row["cells"] if "headlines" in cell] == [1.0, 4.0]
    assert found.cells.counts()["failed"] == 1


def test_ctrl_c_keeps_what_is_done(built, template):
    found = whatif(built, rates=(1, 2, 4), executor=Oracle(lambda at: bent(template, 0.1) if at.rate < 3 else None))
    assert found.interrupted
    document = found.document()
    assert [cell["rate"] for cell in document["variations"][0]["cells"]] == [1.0, 2.0]
    assert "interrupted: cells are missing" in document["notes"]


def test_ctrl_c_between_two_rounds_keeps_what_is_done(built, template):
    def cell(at: At) -> dict[str, Any]:
        if at.rate == 4:
            raise KeyboardInterrupt
        return bent(template, 0.1)

    found = whatif(built, rates=(1, 2, 4), executor=Oracle(cell))
    assert found.interrupted
    assert [each["rate"] for each in found.document()["variations"][0]["cells"]] == [1.0, 2.0]


def test_a_cell_is_the_replay_of_the_scenario_so_changed(path, tmp_path):
    overrides = ["pools[one].gpu=H100", "traffic.rate_scale=2"]
    expected = simroute.run(load(path, overrides=overrides), jobs=1).results[0].summary
    change = Change(set={"pools[one].gpu": "H100"})
    found = whatif(path, [change], rates=(2,), buy=False, executor=InProcess())
    assert found.cells.known[At(1, 2.0)] == expected


def test_a_second_study_reuses_all_and_says_the_same(path, tmp_path):
    changes = [Change(lose=(Loss(zone="a"),)), Change(price=2.0)]
    first, second = (
        whatif(path, changes, rates=(1, 30), executor=InProcess(), cache=Cache(tmp_path)) for _ in range(2)
    )
    assert first.cells.counts()["simulated"] > 0
    assert second.cells.counts() == {**first.cells.counts(), "simulated": 0, "reused": first.cells.counts()["cells"]}
    assert json.dumps(first.document()) == json.dumps(second.document())


def test_the_best_policy_of_the_scenario_is_taken(path, template):
    three = load(path, overrides=["policies=[random, round_robin, least_requests]"])
    oracle = Oracle(lambda at: bent(template, 0.1, usd=[3, 1, 2][at.variation]))
    found = whatif(three, rates=(1,), executor=oracle).document()
    assert found["policy"] == "round_robin"
    assert found["policies_tried"] == ["random", "round_robin", "least_requests"]
    assert len(oracle.asked) == 3


def test_further_policies_are_changes(built, template):
    oracle = Oracle(lambda at: bent(template, 0.1))
    found = whatif(built, policies=["random", "least_requests"], rates=(1,), executor=oracle).document()
    assert [(row["name"], row["policy"]) for row in found["variations"]] == [
        ("as it is", "random"),
        ("policy least_requests", "least_requests"),
    ]


def test_impossible_changes_are_listed_and_the_others_go_on(built, template):
    changes = [
        Change(set={"pools[one].model": "Llama-3.3-70B"}),
        Change(set={"pools[one].price": {"provider": "AWS", "term": "spot"}}),
        Change(set={"router.scrape_interval_s": 1e-9}),
        Change(spot=SpotShare(share=0.1)),
        Change(input=2.0),
    ]
    found = whatif(built, changes, rates=(1,), executor=Oracle(lambda at: bent(template, 0.1))).document()
    assert [row["name"] for row in found["variations"]] == ["as it is", "prompts x2"]
    reasons = [each["reason"] for each in found["impossible"]]
    wanted = ["does not fit", "no spot price of L40S at AWS", "would never finish", "0.1 of the replicas"]
    for reason, text in zip(reasons, wanted, strict=True):
        assert text in reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change(set={"pools[one].gpu": "H101"}), "--set pools[one].gpu: unknown GPU 'H101'"),
        (Change(set={"pools[three].gpu": "L4"}), "--set pools[three].gpu: unknown item of pools 'three'"),
        (Change(set={"pools[one].gpuu": "L4"}), "--set pools[one].gpuu: unknown field 'gpuu': did you mean gpu?"),
        (Change(set={"pools[one].replicas": 0}), "--set pools[one].replicas: must be ≥ 1, got 0"),
        (Change(set={"pools[one].price.term": "sopt"}), "unknown price term 'sopt'"),
        (Change(set={"pools[one].calibration": "gone.yaml"}), "gone.yaml"),
        (Change(lose=(Loss(zone="c"),)), "--lose zone=c: unknown zone 'c': known are a, b"),
        (Change(lose=(Loss(pool="three"),)), "--lose pool=three: unknown pool 'three'"),
        (Change(lose=(Loss(pool="one", replicas=3),)), "--lose pool=one:3: pool one has 2 replica(s)"),
        (Change(lose=(Loss(pool="one", replicas=2), Loss(pool="one"))), "pool one has 2 replica(s)"),
        (Change(mix={"chatt": 2.0}), "--mix chatt: unknown request class 'chatt': did you mean chat?"),
        (Change(policy="nonsense"), "unknown policy 'nonsense'"),
        (Change(spot=SpotShare(share=0.5, pool="three")), "spot: unknown pool 'three'"),
        (Change(name="mine", lose=(Loss(zone="c"),)), "change mine: --lose zone=c: unknown zone"),
    ],
)
def test_names_that_do_not_exist_are_refused_before_anything_runs(built, change, text):
    oracle = Oracle(lambda at: None)
    with pytest.raises(UsageError) as told:
        whatif(built, [Change(input=2.0), change], executor=oracle)
    assert text in str(told.value)
    assert "\n" not in str(told.value)
    assert oracle.asked == []


def test_today_is_replayed_even_where_less_is_too_much(built, template, monkeypatch):
    monkeypatch.setattr("simroute.planner.whatif.cpus", lambda: 1)
    oracle = Oracle(lambda at: bent(template, 1.0, stability="OVERLOADED" if at.variation else "STABLE"))
    found = whatif(built, [Change(input=3.0)], rates=(0.25, 0.5, 1, 2), buy=False, executor=oracle).document()
    row = found["variations"][1]
    assert [cell["rate"] for cell in row["cells"] if "headlines" in cell] == [0.25, 1.0]
    assert [cell["rate"] for cell in row["cells"] if "skipped" in cell] == [0.5, 2.0]
    assert row["breaks_at"] == 0.25
    assert "Changes that break today's traffic: prompts x3" in found["answer"]


def test_progress_never_goes_back(built, template):
    told: list[float] = []

    def cell(at: At) -> dict[str, Any]:
        return bent(template, at.rate)

    class Telling(Oracle):
        def map(self, fn: Any, items: Sequence[At], *, progress: Any = None, stop: Any = None) -> Iterator[Any]:
            for done, found in enumerate(super().map(fn, items), start=1):
                yield found
                progress(done / len(items))

    whatif(built, rates=(1, 2, 4), executor=Telling(cell), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rates": (0,)}, "rate: must be from 0.001 to 1000"),
        ({"rates": tuple(range(1, 200))}, "rates: at most 100, got 199"),
        ({"precision": 0}, "precision: must be from 0.001 to 1"),
    ],
)
def test_impossible_numbers_are_refused(built, arguments, text):
    with pytest.raises(UsageError, match=text):
        whatif(built, **arguments)


def test_frame_has_a_row_a_cell(built, template):
    found = whatif(built, [Change(price=2.0)], rates=(1, 2), executor=Oracle(lambda at: bent(template, 0.1)))
    frame = found.frame()
    assert list(frame["variation"]) == ["as it is", "as it is", "prices x2", "prices x2"]
    assert list(frame["rate"]) == [1.0, 2.0, 1.0, 2.0]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`command(*arguments)`: (exit code, stdout, stderr) of `simroute whatif` on the tiny scenario."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["simroute", "whatif", str(path), "--jobs", "1", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return (int(stopped.value.code or 0), *capsys.readouterr())

    return call


def test_the_command_writes_what_it_prints_and_goes_on_from_there(command, tmp_path):
    arguments = ("--rate", "1,40", "--lose", "pool=one", "--set", "router.scrape_interval_s=1,5", "-o", "out")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Under round_robin the fleet")
    assert all(name in out for name in ("1 of one lost", "router.scrape_interval_s=1", "router.scrape_interval_s=5"))
    assert " 0 reused" in out
    document = json.loads((tmp_path / "out/whatif.json").read_text())
    assert len(document["variations"]) == 4
    opening = {"html": "<!doctype html>", "md": "# tiny: what if", "csv": "variation,policy,rate"}
    for kind, opens in opening.items():
        assert (tmp_path / f"out/whatif.{kind}").read_text().lstrip().startswith(opens)
    code, out, _ = command(*arguments, "--json")
    assert json.loads(out) == document
    assert " 0 simulated" in command(*arguments)[1]
    assert "0 reused" in command(*arguments, "--no-resume")[1]


def test_assertions_are_on_rows(command, tmp_path):
    arguments = ("--rate", "1", "--price", "2", "--no-buy", "--quiet")
    assert command(*arguments, "--assert", "holds_to >= 1", "--assert", "as it is: ttft_p99 < 2s")[0] == 0
    code, _, err = command(*arguments, "--assert", "prices x2: holds_to >= 3")
    assert (code, err) == (99, "assertion failed: prices x2: holds_to >= 3: prices x2 has holds_to = 1.0\n")
    assert command(*arguments, "--assert", "cost_usd_per_month < 1", "--junit", "found.xml")[0] == 99
    assert "assertion failed" in (tmp_path / "found.xml").read_text()
    code, _, err = command(*arguments, "--assert", "nobody: holds_to > 1")
    assert code == 2
    assert "unknown row 'nobody'" in err


def test_an_assertion_on_an_impossible_change_fails(command):
    arguments = ("--rate", "1", "--no-buy", "--quiet", "--set", "pools[one].model=Llama-3.3-70B")
    code, _, err = command(*arguments, "--assert", "holds_to >= 1")
    assert code == 99
    assert "pools[one].model=Llama-3.3-70B has holds_to = no value" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate", "1,x"), "--rate 1,x: must be numbers separated by commas"),
        (("--rate", "0"), "--rate 0: every number must be above 0"),
        (("--set", "pools"), "--set pools: must be PATH=VALUE"),
        (("--lose", "one"), "--lose one: must be zone=NAME"),
        (("--lose", "pool=one:0"), "--lose pool=one:0: must be zone=NAME"),
        (("--mix", "chat"), "--mix chat: must be CLASS=WEIGHT"),
        (("--change", "none.yaml"), "none.yaml: cannot be read"),
        (("--change", "{inputs: 1}"), "a change has name, set, input"),
        (("--policy", "nonsense"), "unknown policy 'nonsense'"),
        (("--base", "pools[one].gpu=H101"), "--base pools[one].gpu: unknown GPU 'H101'"),
        (("--base", "foo"), "--base foo: must be path=value"),
        (("--lose", "pool=nope"), "--lose pool=nope: unknown pool 'nope'"),
        (("--lose", "zone=nope"), "--lose zone=nope: unknown zone 'nope'"),
        (("--lose", "pool=one:99"), "--lose pool=one:99: pool one has 2 replica(s)"),
        (("--set", "pools[nope].gpu=L4"), "--set pools[nope].gpu: unknown item of pools 'nope'"),
        (("--set", "pools[one].gpuu=L4"), "--set pools[one].gpuu: unknown field 'gpuu'"),
        (("--mix", "nope=2"), "--mix nope: unknown request class 'nope'"),
        (("--policy", "round_robin", "--policy", "nope"), "unknown policy 'nope'"),
        (("--spot", "1.5"), "--spot 1.5: every number must be a share"),
    ],
)
def test_bad_options_are_told_in_one_line(command, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_values_with_brackets_are_one_value():
    from simroute.cli.change_options import changes_of

    found = changes_of(["pools[a].zones=[x, y],[z]", "name='a,b',c"], None, None, None, None, None, None, None)
    assert [each.set for each in found] == [
        {"pools[a].zones": ["x", "y"]},
        {"pools[a].zones": ["z"]},
        {"name": "a,b"},
        {"name": "c"},
    ]


# -- the page ---------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/whatif.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_shows_what_its_command_prints(tmp_path):
    run = [sys.executable, "-m", "simroute", *shlex.split(blocks("sh")[0])[1:], "--cache", str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    shown = blocks("text")[0].splitlines()
    assert shown[-1] == "..."
    assert done.stdout.splitlines()[: len(shown) - 1] == shown[:-1]


def test_the_changes_of_the_page_are_read():
    assert next(each.shown for each in changes_in(blocks("yaml")[0], "page")) == "agents arrive"


def test_every_key_is_explained(built, template):
    oracle = Oracle(lambda at: bent(template, 2.0 * at.rate))
    misfit = Change(set={"pools[one].model": "Llama-3.3-70B"})
    document = whatif(built, [misfit], rates=(1, 2), executor=oracle).document()
    row, buy = document["variations"][0], document["buy"]
    cell, offer = row["cells"][0], buy["steps"][0]["offers"][0]
    parts = [document, row, buy, cell, cell["headlines"], row["breaks"][0], row["breaks_first"][0]]
    parts += [buy["steps"][0], offer, document["impossible"][0]]
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert {key for part in parts for key in part} - {"skipped", "failed"} <= named
    assert {*Change.model_fields, *SpotShare.model_fields} <= named


def test_every_change_of_the_table_can_be_made(template, monkeypatch, capsys):
    table = PAGE[PAGE.index("| what changes |") : PAGE.index("Each value of")]
    asked = [option for line in table.splitlines() for option in re.findall(r"`(--[^`]*)`", line)]
    assert len(asked) > 15
    command = ["simroute", "whatif", "scenarios/mixed_traffic.yaml", *shlex.split(" ".join(asked))]
    command += ["--base", "traffic.traces[0].head=30", "--base", "pools[large-fp8].zones=[zone-a, zone-b]"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [*command, "--no-buy", "--no-resume", "--json"])
    oracle = Oracle(lambda at: bent(template, 0.1))
    monkeypatch.setattr("simroute.planner.execution.executor.executor_named", lambda *of, **options: oracle)
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code in (None, 0), err
    document = json.loads(out)
    assert [each["name"] for each in document["impossible"]] == ["50% of all replicas on spot"]
    assert len(document["variations"]) > 20
