"""The HTML report's tables as plain data: headers, rows, and what a cell shows besides its text. Imports results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from simroute.report.text import (
    BASES,
    UNKNOWN,
    count,
    lost,
    milliseconds,
    number,
    percent,
    ranged,
    resent,
    state,
    usd,
)
from simroute.results.compare import Summary, floor_kept, meets


class Cell(NamedTuple):
    """One cell: its text, a `tone` (good, warn, bad or none) and the filled share of a bar behind it (0..1)."""

    text: str
    tone: str = ""
    bar: float | None = None


class Header(NamedTuple):
    """A column's name and, above it, the name of the group that it shares with its neighbours."""

    name: str
    group: str = ""


class Grid(NamedTuple):
    """A table: a caption, one header a column, rows of cells; the first column names the row."""

    caption: str
    headers: Sequence[Header]
    rows: Sequence[Sequence[Cell]]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The row above the headers: (name, columns spanned); empty when no column belongs to a group."""
        spans = [(name, len(list(members))) for name, members in groupby(header.group for header in self.headers)]
        return spans if any(name for name, _ in spans) else []


STATE_TONES = {"STABLE": "good", "BACKLOGGED": "warn", "OVERLOADED": "bad"}
_NEAR = 0.05
"""An attainment this far below the target, or less, is a warning rather than a failure."""


def comparison(ranked: Sequence[Summary], target: float) -> Grid:
    """One row a policy, best first, with the numbers that decide."""
    columns: list[tuple[Header, Callable[[Summary], Cell]]] = [
        (Header("within targets"), lambda s: _attained(s, target)),
        *([(Header("replicates within"), _meeting)] if any("replicates" in s for s in ranked) else []),
        (Header("USD a month"), _number("cost_usd_per_month", usd)),
        (Header("state"), lambda s: Cell(state(s), STATE_TONES[s["stability"]])),
        *_latency("TTFT, s", "ttft_s", number),
        *_latency("TPOT, ms", "tpot_s", milliseconds),
        *_latency("ITL, ms", "itl_s", milliseconds),
        *_latency("E2E, s", "e2e_s", number),
        (Header("goodput", "per second"), _number("goodput_rps", number)),
        (Header("tokens out", "per second"), _number("output_tokens_per_s", number)),
        (Header("not answered"), lambda s: Cell(f"{lost(s):,}", "warn" if lost(s) else "")),
        *_ended(ranked),
        (Header("preemptions"), lambda s: Cell(f"{s['preemptions']:,}")),
        (Header("quality"), lambda s: Cell(number(s["quality"]["mean"]))),
        (Header("floor kept"), lambda s: attainment(floor_kept(s), target)),
        (Header("GPUs"), lambda s: Cell(count(s["gpus"]))),
        (Header("GPU busy"), lambda s: _filled(s["gpu_busy"])),
        (Header("mean", "KV use"), lambda s: _filled(s["kv_usage"]["mean"])),
        (Header("p99", "KV use"), lambda s: _filled(s["kv_usage"]["p99"])),
        (Header("prefix hits"), lambda s: Cell(percent(s["prefix_hit_rate"]))),
        (Header("tokens out", "USD per 1M"), _number("cost_usd_per_1m_output_tokens", usd)),
    ]
    rows = [[_name(s, target), *(cell(s) for _, cell in columns)] for s in ranked]
    return Grid("Policies, best first", [Header("policy"), *(header for header, _ in columns)], rows)


def attainment_by_class(ranked: Sequence[Summary], target: float) -> Grid:
    """The share of each class within its targets, one row a policy."""

    def cell(summary: Summary, name: str) -> Cell:
        return attainment(_at(summary["by_class"], name, "slo_attainment"), target)

    return _by_group("Requests within their targets", "by_class", ranked, target, cell)


def quality_by_class(ranked: Sequence[Summary], target: float) -> Grid:
    """The expected quality of each class's answers, one row a policy; the tone says how many reach the floor."""

    def cell(summary: Summary, name: str) -> Cell:
        below = summary["quality"]["below_floor_by_class"].get(name)
        tone = attainment(1.0 - below, target).tone if below else ""
        return Cell(number(summary["quality"]["by_class"].get(name)), tone)

    return _by_group("Expected quality of the answers (0 to 1)", "by_class", ranked, target, cell)


def tenants(ranked: Sequence[Summary], target: float) -> list[Grid]:
    """What each tenant gets and what it costs, one row a policy; nothing where there is one tenant."""
    if not several_tenants(ranked):
        return []

    def served(summary: Summary, name: str) -> Cell:
        return attainment(_at(summary["by_tenant"], name, "slo_attainment"), target)

    def paid(summary: Summary, name: str) -> Cell:
        return _filled(_at(summary["by_tenant"], name, "cost_share"))

    grids = [
        _by_group("Requests within their targets, by tenant", "by_tenant", ranked, target, served),
        _by_group("Share of the bill, by tenant", "by_tenant", ranked, target, paid),
    ]
    headers = [Header("policy"), Header("tenants"), Header("goodput"), Header("E2E per output token")]
    rows = [
        [_name(s, target), Cell(str(s["fairness"]["tenants"])), *map(Cell, map(number, _indices(s)))] for s in ranked
    ]
    return [*grids, Grid("Fairness between tenants (Jain's index: 1 is even)", headers, rows)]


def several_tenants(summaries: Sequence[Summary]) -> bool:
    """Whether there are tenants to be fair between."""
    return any(summary["fairness"]["tenants"] > 1 for summary in summaries)


def pools(summary: Summary) -> Grid:
    """The pools as one policy used them."""
    names = ("pool", "GPU", "replicas", "GPUs", "requests", "GPU busy")
    headers = [*map(Header, names), Header("mean", "KV use"), Header("p99", "KV use"), Header("prefix hits")]
    headers += [Header("state"), Header("step times"), Header("USD a month"), Header("tokens out", "USD per 1M")]
    rows = [
        [
            Cell(name),
            Cell(pool["gpu"]),
            Cell(count(pool["replicas"])),
            Cell(count(pool["gpus"])),
            _filled(pool["requests_share"]),
            _filled(pool["gpu_busy"] if pool["gpus"] else None),
            _filled(pool["kv_usage"]["mean"]),
            _filled(pool["kv_usage"]["p99"]),
            Cell(percent(pool["prefix_hit_rate"])),
            Cell(state(pool), STATE_TONES[pool["stability"]]),
            _basis(pool),
            Cell(usd(pool["cost_usd_per_month"])),
            Cell(usd(pool["cost_usd_per_1m_output_tokens"])),
        ]
        for name, pool in summary["by_pool"].items()
    ]
    return Grid(str(summary["policy"]), headers, rows)


def _basis(pool: Mapping[str, Any]) -> Cell:
    """What a pool's step times rest on, and whether its load went beyond what was measured."""
    basis = BASES.get(pool["basis"], pool["basis"] or UNKNOWN)
    return Cell(f"{basis}, extrapolated", "warn") if pool["extrapolated"] else Cell(basis)


def attainment(share: float | None, target: float) -> Cell:
    """A share of requests within targets, or of answers that reach their floor, judged against `target`."""
    if share is None:
        return Cell(percent(share))
    tone = "good" if share >= target else "warn" if share >= target - _NEAR else "bad"
    return Cell(percent(share), tone, share)


def _indices(summary: Summary) -> list[float | None]:
    return [summary["fairness"][key] for key in ("goodput", "e2e_per_token")]


def _by_group(
    caption: str, key: str, ranked: Sequence[Summary], target: float, cell: Callable[[Summary, str], Cell]
) -> Grid:
    names = list(dict.fromkeys(name for summary in ranked for name in summary[key]))
    rows = [[_name(summary, target), *(cell(summary, name) for name in names)] for summary in ranked]
    return Grid(caption, [Header("policy"), *map(Header, names)], rows)


def _latency(
    group: str, key: str, form: Callable[[float | None], str]
) -> list[tuple[Header, Callable[[Summary], Cell]]]:
    """p50, p90 and p99 of one latency."""

    def column(point: str) -> tuple[Header, Callable[[Summary], Cell]]:
        return Header(point, group), _number(f"{key}.{point}", form)

    return [column(point) for point in ("p50", "p90", "p99")]


def _ended(summaries: Sequence[Summary]) -> list[tuple[Header, Callable[[Summary], Cell]]]:
    """How many failed, were cancelled and were sent more than once: each column only where some were."""

    def column(name: str) -> tuple[Header, Callable[[Summary], Cell]]:
        return Header(name, "of these"), lambda summary: Cell(f"{summary['requests'][name]:,}")

    columns = [column(name) for name in ("failed", "cancelled") if any(s["requests"][name] for s in summaries)]
    if any(map(resent, summaries)):
        columns.append((Header("attempts"), lambda summary: Cell(f"{summary['attempts']:,}")))
    return columns


def _number(name: str, form: Callable[[float | None], str]) -> Callable[[Summary], Cell]:
    """The cell of the number called `name`, with its interval where there is one."""
    return lambda summary: Cell(ranged(form, summary, name))


def _attained(summary: Summary, target: float) -> Cell:
    return attainment(summary["slo_attainment"], target)._replace(text=ranged(percent, summary, "slo_attainment"))


def _meeting(summary: Summary) -> Cell:
    """In how many replicates the policy met the targets."""
    found = summary.get("replicates")
    return Cell(f"{found['meets_targets']} of {found['count']}" if found else UNKNOWN)


def _name(summary: Summary, target: float) -> Cell:
    return Cell(f"✓ {summary['policy']}" if meets(summary, target) else summary["policy"])


def _filled(share: float | None) -> Cell:
    return Cell(percent(share), "", share)


def _at(parts: Mapping[str, Any], name: str, key: str) -> Any:
    return parts[name][key] if name in parts else None
