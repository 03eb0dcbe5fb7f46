"""docs/claim.md: what it says of the two claim scenarios is what they give, and its commands are there."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

import simroute
from simroute.workload.formats import read_trace
from simroute.workload.synth import MixSpec, synthesize

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/claim.md").read_text(encoding="utf-8")
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def row(begin: str) -> list[str]:
    """The cells of the first table row that begins so."""
    line = next(line for line in TEXT.splitlines() if line.startswith(f"| {begin}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("scenario", "policy", "begin"),
    [
        ("claim_static_tier.yaml", "static_tier", "before, static by tier | $18,688 | 310"),
        ("claim_quant_routing.yaml", "quant_aware", "after, quant_aware | $3,504 | 442"),
    ],
)
def test_the_page_shows_what_the_scenarios_give(scenario, policy, begin):
    summary = simroute.run(ROOT / "scenarios" / scenario, [policy], jobs=1).summary()["policies"][policy]
    kept = 1 - summary["quality"]["below_floor_share"]
    found = [f"${summary['cost_usd_per_month']:,.0f}", f"{summary['ttft_s']['p99'] * 1e3:,.0f}", f"{kept:.0%}"]
    assert row(begin)[1:4] == found


def test_the_traffic_is_made_from_its_specification():
    from simroute.yamlfile import parse

    spec = parse((ROOT / "traces/claim.yaml").read_text(encoding="utf-8")).value
    trace = synthesize(MixSpec.model_validate(spec))
    assert trace.fingerprint() == read_trace(ROOT / "traces/claim.parquet").fingerprint()


@pytest.mark.parametrize("line", COMMANDS.splitlines())
def test_commands_name_files_and_values_that_exist(line):
    name, command, *arguments = shlex.split(line)
    assert (name, (ROOT / arguments[1 if command == "trace" else 0]).exists()) == ("simroute", True)
    if command == "run":
        overrides = [value for option, value in pairwise(arguments) if option == "--set"]
        simroute.load(ROOT / arguments[0], overrides=overrides)


def test_every_table_is_one_that_the_benchmark_prints():
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("claim*.py")))
    headers = re.findall(r"^\|([^\n]*)\|\n\|-", TEXT, re.MULTILINE)
    assert len(headers) > 10
    for header in headers[1:]:  # the first is the verdict
        for cell in filter(None, (cell.strip() for cell in header.split("|"))):
            assert f'"{cell}"' in code, cell
