"""A plan for the terminal: the answer, the frontier, what binds, how much more traffic it bears. Imports results, rich.

Works on the document of plan.json, so on a loaded one as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simroute.report.plan_words import sensitivities
from simroute.report.tables import PLAIN_WIDTH
from simroute.report.text import UNKNOWN, milliseconds, number, percent, usd

Document = Mapping[str, Any]
MOST_UNFIT = 5
"""Candidates that cannot run, named at most."""
WIDE = 110
"""Columns of a terminal that has room for fleets and policies beside their numbers."""
_UNBOUNDED = 10_000


def print_plan(document: Document, file: IO[str]) -> None:
    """Print the whole of it to `file`, the answer first."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
    console.print(Text(document["answer"], style="bold"))
    for title, plans in _groups(document):
        console.print(Text(f"\n{title}"), soft_wrap=True)
        numbered = console.width < WIDE
        for place, plan in enumerate(plans if numbered else (), 1):
            console.print(Text(f"{place}: {fleet(plan)}, {plan['policy']['label']}"))
        console.print(_table(plans, numbered=numbered))
    if document["binding"]:
        console.print(Text("\nThe best plan's promises, what binds first"), soft_wrap=True)
        for part in _promises(console, document["binding"]):
            console.print(part)
    for line in relaxations(document):
        console.print(Text(f"  {line}"), soft_wrap=True)
    for line in ("", *explained(document)):
        console.print(Text(f" {line}".rstrip(), style="dim"), soft_wrap=True)


def _groups(document: Document) -> Iterator[tuple[str, Sequence[Document]]]:
    if document["frontier"]:
        yield "Frontier: no plan found is better in cost, p99 TTFT, p99 E2E and quality at once", document["frontier"]
    if document["runner_up"]:
        yield "Runner-up", [document["runner_up"]]
    if document["nearest"]:
        yield "Nearest miss", [document["nearest"]]


def _table(plans: Sequence[Document], *, numbered: bool) -> Table:
    """A row a plan: its fleet and policy, or only the number under which they are named above, then its numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for header in ("",) if numbered else ("fleet", "policy"):
        table.add_column(header, overflow="fold")
    for header in ("USD/month", "p99 TTFT ms", "p99 TPOT ms", "p99 E2E s", "in SLO", "quality", "busy"):
        table.add_column(header, justify="right", overflow="fold", no_wrap=not numbered and header != "p99 TTFT ms")
    for place, plan in enumerate(plans, 1):
        head = plan["headlines"]
        table.add_row(
            *((str(place),) if numbered else (fleet(plan), plan["policy"]["label"])),
            usd(plan["cost_usd_per_month"]),
            milliseconds(head["ttft_p99_s"]),
            milliseconds(head["tpot_p99_s"]),
            number(head["e2e_p99_s"]),
            percent(head["slo_attainment"]),
            number(head["quality_mean"]),
            percent(head["gpu_busy"]),
        )
    return table


def fleet(plan: Document) -> str:
    """`7 x Llama-3.1-8B-fp8-L40S`, pools joined by +."""
    return " + ".join(f"{pool['replicas']} x {pool['name']}" for pool in plan["pools"])


def _promises(console: Console, checks: Sequence[Document]) -> Iterator[Table | Text]:
    """The table; where losses are too long for it, numbers in their place and what each stands for."""
    losses = list(dict.fromkeys(check["loss"] for check in checks if check.get("loss")))
    table = _checks(checks, {loss: loss for loss in losses})
    if console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum <= console.width:
        yield table
        return
    marks = {loss: f"({i})" for i, loss in enumerate(losses, 1)}
    yield _checks(checks, marks)
    for loss, mark in marks.items():
        yield Text(f"{mark} {loss}")


def _checks(checks: Sequence[Document], losses: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for header in ("promise", "class", "judged with"):
        table.add_column(header)
    for header in ("value", "limit", "room"):
        table.add_column(header, justify="right")
    for check in checks:
        name = check["constraint"]
        table.add_row(
            name,
            check["class"] or UNKNOWN,
            losses[check["loss"]] if check.get("loss") else "the whole fleet",
            _value(name, check["value"]),
            _value(name, check["limit"]),
            percent(check["margin"]),
        )
    return table


def _value(constraint: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if constraint in ("attainment", "quality_floor"):
        return f"{value:.2%}"
    if constraint == "budget":
        return usd(value)
    return f"{number(value)} s" if constraint.endswith("_p99") else f"{value:g}"


def relaxations(document: Document) -> list[str]:
    """What would have to be asked less of, a line each."""
    return [each["text"] for each in document["relax"]]


def explained(document: Document) -> list[str]:
    """Headroom, what moves the bill, what the search did and proved, candidates that cannot run, notes: a line each."""
    lines = []
    if document["headroom"]:
        lines.append(f"headroom: {document['headroom']['text']}")
    lines += [f"sensitivity: {line}" for line in sensitivities(document)]
    lines.append(_search(document["search"]))
    if gap := document["search"].get("gap"):
        lines.append(f"proof: {gap['text']}")
    unfit = document["unfit"]
    lines += [f"cannot run: {each['name']}: {each['reason']}" for each in unfit[:MOST_UNFIT]]
    if len(unfit) > MOST_UNFIT:
        lines.append(f"cannot run: {len(unfit) - MOST_UNFIT} more, see plan.json")
    return [*lines, *document["notes"], *document["assumptions"]]


def _search(search: Document) -> str:
    pruned = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in search["pruned"].items())
    seen = f"{search['simulated']:,} replays" + (f", {search['reused']:,} reused" if search["reused"] else "")
    failed = f", {search['failed']:,} failed" if search["failed"] else ""
    return (
        f"search: {search['candidates']:,} candidates of {search['options']} variants in {search['seconds']:,.0f} s: "
        f"{search['asked']:,} asked about in {seen}{failed}; ruled out: {pruned or 'none'}"
    )
