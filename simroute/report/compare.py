"""A comparison of policies in tables: places, differences with their verdicts, decisions, and who gets what.

Owns the words and grids that the terminal and the page of `compare_page` show. Imports results; rich where it prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from simroute.report.cells import Cell, Grid, Header, attainment, several_tenants
from simroute.report.text import UNKNOWN, collected_notes, estimates, milliseconds, number, percent, usd
from simroute.results.compare import TARGET_ATTAINMENT, Summary

Document = Mapping[str, Any]
"""compare.json."""

VERDICT_TONES = {"better": "good", "worse": "bad", "noise": ""}


class Shown(NamedTuple):
    """How a headline number is shown: its label, the form of its values and that of its differences."""

    label: str
    form: Callable[[float | None], str]
    change: Callable[[float | None], str]


def _points(share: float | None) -> str:
    return number(share, 100)


HEADLINES = {
    "ttft_s.p50": Shown("TTFT p50, s", number, number),
    "ttft_s.p99": Shown("TTFT p99, s", number, number),
    "tpot_s.p99": Shown("TPOT p99, ms", milliseconds, milliseconds),
    "e2e_s.p99": Shown("E2E p99, s", number, number),
    "slo_attainment": Shown("within targets, %", _points, _points),
    "goodput_rps": Shown("goodput, req/s", number, number),
    "cost_usd_per_month": Shown("USD a month", usd, number),
    "cost_usd_per_1m_output_tokens": Shown("USD per 1M output tokens", usd, number),
    "quality.mean": Shown("quality", number, number),
}
"""The headline numbers by name, in the order of the tables."""
GROUPS = (("by_class", "class"), ("by_tenant", "tenant"), ("by_tier", "tier"))


def print_comparison(document: Document, file: IO[str]) -> None:
    """Print the answer, the tables and the notes to `file`, readable without colours and when piped."""
    from rich.console import Console
    from rich.text import Text

    from simroute.report.tables import PLAIN_WIDTH

    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
    console.print(Text(document["answer"], style="bold"))
    for grid in (places(document), *differences(document), *decisions(document)):
        console.print(Text(f"\n{grid.caption}"), soft_wrap=True)
        console.print(_table(grid))
    for line in ("", *explained(document), *notes(document)):
        console.print(Text(f" {line}", style="dim"), soft_wrap=True)


def places(document: Document) -> Grid:
    """One row a policy, the best first: its places over the worlds and how fair it is between tenants."""
    worlds, summaries = document["worlds"], document["policies"]
    several = several_tenants(list(summaries.values()))
    headers = [Header("policy"), Header("mean", "place"), Header("first in", "place"), Header("within targets in")]
    headers += [Header("OVERLOADED in")]
    headers += [Header("goodput", "fairness"), Header("E2E per token", "fairness")] if several else []
    rows = []
    for label, found in document["ranking"].items():
        row = [Cell(label), Cell(number(found["mean_place"])), Cell(f"{found['first_in']} of {worlds}")]
        overloaded = found["stability"]["OVERLOADED"]
        row += [Cell(f"{found['meets_targets']} of {worlds}")]
        row += [Cell(f"{overloaded} of {worlds}", "bad" if overloaded else "")]
        if several:
            fair = summaries.get(label, {}).get("fairness", {})
            row += [Cell(number(fair.get(key))) for key in ("goodput", "e2e_per_token")]
        rows.append(row)
    return Grid(f"Policies over {worlds} worlds, best first", headers, rows)


def differences(document: Document) -> list[Grid]:
    """A table for each policy but the baseline: every headline number against the baseline's, with its verdict."""
    return [_differences(document, label, found) for label, found in document["differences"].items()]


def decisions(document: Document) -> list[Grid]:
    """What the decisions on the trace lost against the oracle; nothing where they were not logged."""
    if not document["decisions"]:
        return []
    headers = [Header("policy"), Header("decisions"), Header("rejected"), Header("predicted")]
    headers += [Header("mean", "regret, s"), Header("p99", "regret, s"), Header("above 10% of the best")]
    rows = [
        [
            Cell(label),
            *(Cell(f"{found[key]:,}") for key in ("decisions", "rejected", "predicted")),
            *(Cell(number(found[key])) for key in ("mean_regret_s", "p99_regret_s")),
            Cell(percent(found["notable_share"])),
        ]
        for label, found in document["decisions"].items()
    ]
    return [Grid("Decisions on the trace itself against an oracle that knows lengths", headers, rows)]


def groups(document: Document) -> Iterator[Grid]:
    """For each policy its classes, tenants and tiers on the trace itself: what they get and what they cost."""
    for label, summary in document["policies"].items():
        rows = [_group(f"{kind} {name}", part) for key, kind in GROUPS for name, part in summary[key].items()]
        names = ("within targets", "goodput, req/s", "share of the bill")
        headers = [Header(label), Header("requests"), *map(Header, names)]
        headers += [
            Header("p50", "TTFT, s"),
            Header("p99", "TTFT, s"),
            Header("p99", "TPOT, ms"),
            Header("p99", "E2E, s"),
        ]
        yield Grid(label, headers, rows)


def explained(document: Document) -> list[str]:
    """What the tables mean, a sentence each."""
    level, worlds, block_s = document["level"], document["worlds"], document["block_s"]
    return [
        f"difference: the policy less the baseline, in the mean over {worlds} worlds that both went through; each has "
        f"its own traffic (the trace, resampled by blocks of {block_s:g} s), step times and luck",
        f"interval: Student's {100 * level:g}% interval of that mean; verdict: noise if it holds 0 (docs/compare.md)",
    ]


def notes(document: Document) -> list[str]:
    """Everything a reader must know, a line each, once."""
    summaries: Sequence[Summary] = list(document["policies"].values())
    estimated = estimates(summaries)
    return [*([f"≈ {estimated}"] if estimated else []), *collected_notes(summaries, document["notes"])]


def _differences(document: Document, label: str, found: Mapping[str, Any]) -> Grid:
    baseline = document["baseline"]
    lacking = any(max(entry["without_value"].values()) for entry in found.values())
    headers = [Header("number"), Header(baseline), Header(label), Header("difference"), Header("interval")]
    headers += [Header("verdict"), Header("better in"), Header("worse in")]
    headers += [Header(baseline, "no value in"), Header(label, "no value in")] if lacking else []
    rows = [_difference(HEADLINES[name], entry, lacking) for name, entry in found.items()]
    return Grid(f"{label} against {baseline}", headers, rows)


def _difference(shown: Shown, entry: Mapping[str, Any], lacking: bool) -> list[Cell]:
    row = [Cell(shown.label), Cell(shown.form(entry["baseline_mean"])), Cell(shown.form(entry["policy_mean"]))]
    row += [Cell(_signed(shown, entry["mean"])), Cell(_ends(shown, entry))]
    row += [Cell(entry["verdict"], VERDICT_TONES[entry["verdict"]])]
    row += [Cell(str(entry["better_in"])), Cell(str(entry["worse_in"]))]
    row += [Cell(str(entry["without_value"][side])) for side in ("baseline", "policy")] if lacking else []
    return row


def _signed(shown: Shown, value: float | None) -> str:
    text = shown.change(value)
    return f"+{text}" if value is not None and value > 0 and text != "0" else text


def _ends(shown: Shown, entry: Mapping[str, Any]) -> str:
    if entry["low"] is None:
        return UNKNOWN
    return f"[{_signed(shown, entry['low'])}, {_signed(shown, entry['high'])}]"


def _group(name: str, part: Mapping[str, Any]) -> list[Cell]:
    share = part["cost_share"]
    return [
        Cell(name),
        Cell(f"{part['requests']['arrived']:,}"),
        attainment(part["slo_attainment"], TARGET_ATTAINMENT),
        Cell(number(part["goodput_rps"])),
        Cell(percent(share), "", share),
        Cell(number(part["ttft_s"]["p50"])),
        Cell(number(part["ttft_s"]["p99"])),
        Cell(milliseconds(part["tpot_s"]["p99"])),
        Cell(number(part["e2e_s"]["p99"])),
    ]


def _table(grid: Grid) -> Any:
    """A grid as rich's table; a group's name stands above the first of its columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    grouped = any(header.group for header in grid.headers)
    for position, header in enumerate(grid.headers):
        first = not position or header.group != grid.headers[position - 1].group
        above = f"{header.group if first else ''}\n" if grouped else ""
        table.add_column(f"{above}{header.name}", justify="right" if position else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(cell.text for cell in row))
    return table
