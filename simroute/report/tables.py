"""Results as tables for the terminal, readable without colours and when piped. Imports results and rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import IO, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simroute.report.cells import several_tenants
from simroute.report.text import (
    ESTIMATED_MARK,
    collected_notes,
    count,
    estimates,
    lives,
    milliseconds,
    number,
    percent,
    ranged,
    replicated,
    resent,
    state,
    usd,
)
from simroute.results.compare import TARGET_ATTAINMENT, Summary, answer, floor_kept, meets, rank

Column: TypeAlias = tuple[str, Callable[[Summary], str]]

PLAIN_WIDTH = 120
"""Columns of what is not a terminal."""
_UNBOUNDED = 10_000


def print_results(
    summaries: Sequence[Summary],
    file: IO[str],
    *,
    target: float = TARGET_ATTAINMENT,
    notes: Sequence[str] = (),
) -> None:
    """Print the answer, the tables (best policy first) and the notes to `file`; `notes` are about all policies."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
    console.print(Text(answer(summaries, target), style="bold"))
    ranked = rank(summaries, target)
    for title, columns in _tables(ranked):
        for table in _fitting(console, title, columns, ranked, target):
            console.print(table)
    for line in (*_legend(ranked, target), *collected_notes(ranked, notes)):
        console.print(Text(f" {line}", style="dim"), soft_wrap=True)


def _fitting(
    console: Console, title: str, columns: Sequence[Column], summaries: Sequence[Summary], target: float
) -> Iterator[Table]:
    """The table, in as many pieces side by side as the console's width asks for."""
    table = _table(title, columns, summaries, target)
    wanted = console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum
    if len(columns) > 1 and wanted > console.width:
        half = len(columns) // 2
        yield from _fitting(console, title, columns[:half], summaries, target)
        yield from _fitting(console, title, columns[half:], summaries, target)
    else:
        yield table


def _table(title: str, columns: Sequence[Column], summaries: Sequence[Summary], target: float) -> Table:
    """One row a policy; a star marks those that meet the targets, so that nothing hangs on colour."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(f"\n{title}\n", no_wrap=True)
    for header, _ in columns:
        table.add_column(f"\n{header}", justify="right", no_wrap=True)
    for summary in summaries:
        good = meets(summary, target)
        name = f"{summary['policy']} *" if good else summary["policy"]
        table.add_row(name, *(form(summary) for _, form in columns), style="" if good else "dim")
    return table


def _legend(summaries: Sequence[Summary], target: float) -> Iterator[str]:
    yield ""
    if any(meets(s, target) for s in summaries):
        yield f"* meets the targets: {target:.0%} of all requests (rejected and unfinished ones included) in time, and"
        yield f"  {target:.0%} of the answers from variants that reach their class's quality floor (floor kept)"
    if said := estimates(summaries):
        yield f"{ESTIMATED_MARK} {said}"
    if explained := replicated(summaries):
        yield explained


def _latency(label: str, key: str, form: Callable[[float | None], str]) -> list[Column]:
    """p50, p90 and p99 of one latency; the first of the three headers carries the name."""

    def column(header: str, point: str) -> Column:
        return f"{header}\n{point}", lambda summary: ranged(form, summary, f"{key}.{point}")

    return [column(label, "p50"), column("", "p90"), column("", "p99")]


_LATENCY: list[Column] = [
    *_latency("TTFT s", "ttft_s", number),
    *_latency("E2E s", "e2e_s", number),
    *_latency("TPOT ms", "tpot_s", milliseconds),
    *_latency("ITL ms", "itl_s", milliseconds),
]
_SERVICE: list[Column] = [
    ("within\ntargets", lambda s: ranged(percent, s, "slo_attainment")),
    ("goodput\nreq/s", lambda s: ranged(number, s, "goodput_rps")),
    ("output\ntokens/s", lambda s: ranged(number, s, "output_tokens_per_s")),
    ("\nstate", state),
    ("\ncompleted", lambda s: f"{s['requests']['completed']:,}"),
    ("\nrejected", lambda s: f"{s['requests']['rejected']:,}"),
]
_FAILED: Column = ("\nfailed", lambda s: f"{s['requests']['failed']:,}")
_CANCELLED: Column = ("\ncancelled", lambda s: f"{s['requests']['cancelled']:,}")
_REST: list[Column] = [
    ("\nunfinished", lambda s: f"{s['requests']['unfinished']:,}"),
    ("\npreempted", lambda s: f"{s['preemptions']:,}"),
]
_ATTEMPTS: Column = ("\nattempts", lambda s: f"{s['attempts']:,}")
_COST: list[Column] = [
    ("\nGPUs", lambda s: count(s["gpus"])),
    ("USD\na month", lambda s: ranged(usd, s, "cost_usd_per_month")),
    ("USD per 1M\noutput tokens", lambda s: ranged(usd, s, "cost_usd_per_1m_output_tokens")),
    ("\nquality", lambda s: number(s["quality"]["mean"])),
    ("floor\nkept", lambda s: percent(floor_kept(s))),
    ("GPU\nbusy", lambda s: percent(s["gpu_busy"])),
    ("KV use\nmean", lambda s: percent(s["kv_usage"]["mean"])),
    ("\np99", lambda s: percent(s["kv_usage"]["p99"])),
    ("prefix\nhits", lambda s: percent(s["prefix_hit_rate"])),
]
_LIVES: list[Column] = [
    ("\nstarts", lambda s: f"{s['fleet']['starts']:,}"),
    ("crashed\nor lost", lambda s: f"{s['fleet']['crashes']:,}"),
    ("ready of\npaid time", lambda s: percent(s["fleet"]["ready_share"])),
    ("without\na replica", lambda s: percent(s["fleet"]["without_replica_share"])),
    ("most\nheld", lambda s: f"{s['fleet']['most_held']:,}"),
    ("tokens,\nUSD a run", lambda s: usd(s["fleet"]["token_usd"])),
]
_TENANTS: list[Column] = [
    ("\ntenants", lambda s: str(s["fairness"]["tenants"])),
    ("fairness\ngoodput", lambda s: number(s["fairness"]["goodput"])),
    ("\nE2E per token", lambda s: number(s["fairness"]["e2e_per_token"])),
    ("least within\ntargets", lambda s: _extreme(s, "slo_attainment", min)),
    ("largest share\nof the bill", lambda s: _extreme(s, "cost_share", max)),
]
_MEETING: Column = ("replicates\nwithin", lambda s: f"{s['replicates']['meets_targets']}/{s['replicates']['count']}")


def _tables(summaries: Sequence[Summary]) -> list[tuple[str, list[Column]]]:
    """The tables to print: titles and columns."""
    tables = [("Latency", _LATENCY), ("Service", _service(summaries)), ("Fleet and cost", _COST)]
    tables += [("Replicas", _LIVES)] if any(map(lives, summaries)) else []
    return [*tables, ("Tenants", _TENANTS)] if several_tenants(summaries) else tables


def _service(summaries: Sequence[Summary]) -> list[Column]:
    """What became of the requests; endings that no fixed fleet knows only where there are some."""
    meeting = [_MEETING] if summaries and all("replicates" in s for s in summaries) else []
    failed = [_FAILED] if any(s["requests"]["failed"] for s in summaries) else []
    cancelled = [_CANCELLED] if any(s["requests"]["cancelled"] for s in summaries) else []
    attempts = [_ATTEMPTS] if any(map(resent, summaries)) else []
    return [*_SERVICE[:1], *meeting, *_SERVICE[1:], *failed, *cancelled, *_REST, *attempts]


def _extreme(summary: Summary, key: str, choose: Callable[..., str]) -> str:
    """The tenant with the least or the most of something, and how much of it."""
    known = {name: part[key] for name, part in summary["by_tenant"].items() if part[key] is not None}
    if not known:
        return percent(None)
    name = choose(known, key=lambda tenant: known[tenant])
    return f"{name} {percent(known[name])}"
