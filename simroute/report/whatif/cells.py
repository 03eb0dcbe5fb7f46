"""A what-if's document as tables, the same for page, terminal and Markdown. Imports the report's other files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from simroute.report.cells import STATE_TONES, Cell, Grid, Header, attainment
from simroute.report.text import BASES, UNKNOWN, milliseconds, number, percent, usd

Document: TypeAlias = Mapping[str, Any]
"""whatif.json."""
Row: TypeAlias = Mapping[str, Any]
"""One variation of it: the scenario as it is, or one change."""

STAR = "*"
"""Marks a cell that meets every target, where text alone has to do."""
_UNMEASURED = ("estimated", "proxy")


def matrix(document: Document, star: str = STAR) -> Grid:
    """A row a variation, a column a rate: the share within targets, `star` where every target is met."""
    rates = document["rates"]
    headers = [Header("within targets at x traffic"), *(Header(times(rate)) for rate in rates)]
    target = document["target_attainment"]
    rows = []
    for row in document["variations"]:
        found = {cell["rate"]: cell for cell in row["cells"]}
        shares = [_share(found.get(rate, {}), target, star) for rate in rates]
        rows.append([Cell(str(row["name"])), *shares, _reach(row), Cell(times(row["breaks_at"]))])
    return Grid("Changes and rates", [*headers, Header("holds to"), Header("breaks at")], rows)


def costs(document: Document) -> Grid:
    """A row a variation: what it costs at today's traffic, and with what has to be bought to bear it."""
    names: tuple[str, ...] = (
        "at today's traffic",
        "USD a month",
        "more than now",
        "USD per 1M tokens out",
        "to bear it buy",
        "then",
    )
    now = today(document["variations"][0]).get("cost_usd_per_month")
    rows = []
    for number_, row in enumerate(document["variations"]):
        cell = today(row)
        cost = cell.get("cost_usd_per_month")
        more = None if not number_ or cost is None or now is None else cost - now
        buy = row["buy"]
        after = None if buy is None or cost is None else cost + buy["usd_per_month"]
        rows.append(
            [
                Cell(str(row["name"])),
                Cell(usd(cost)),
                Cell(_signed(more)),
                Cell(usd(cell.get("cost_usd_per_1m_output_tokens"))),
                Cell(replicas(buy), "" if buy is None or buy["meets"] else "bad"),
                Cell("" if after is None else usd(after)),
            ]
        )
    if not any(row["buy"] for row in document["variations"]):
        names, rows = names[:-2], [row[:-2] for row in rows]
    return Grid("What each change costs", [Header(name) for name in names], rows)


def by_rate(document: Document, star: str = STAR) -> Grid:
    """The scenario as it is, a row for every rate that was replayed."""
    names: tuple[str, ...] = ("as it is, x traffic", "requests/s", "within targets", "TTFT p99, s", "TPOT p99, ms")
    names += ("E2E p99, s", "GPU busy", "USD per 1M out", "state")
    rows = []
    for cell in document["variations"][0]["cells"]:
        if "headlines" not in cell:
            blank = [Cell("")] * (len(names) - 2)
            rows.append([Cell(times(cell["rate"])), *blank, Cell(str(cell.get("skipped") or cell["failed"]))])
            continue
        head = cell["headlines"]
        rows.append(
            [
                Cell(times(cell["rate"])),
                Cell(number(cell["requests_per_s"])),
                _share(cell, document["target_attainment"], star),
                Cell(number(head["ttft_p99_s"])),
                Cell(milliseconds(head["tpot_p99_s"])),
                Cell(number(head["e2e_p99_s"])),
                Cell(percent(head["gpu_busy"])),
                Cell(usd(cell["cost_usd_per_1m_output_tokens"])),
                Cell(str(cell["stability"]), STATE_TONES.get(cell["stability"], "")),
            ]
        )
    return Grid("The fleet as it is, at every rate", [Header(name) for name in names], rows)


def breaks(document: Document, *, every: bool = False) -> Grid:
    """The targets of the scenario as it is, the first to break first; those that hold in one line, or in one each."""
    targets = document["variations"][0]["breaks"]
    found = sorted((each for each in targets if each["breaks_at"]), key=lambda each: float(each["breaks_at"]))
    held = [each for each in targets if not each["breaks_at"]]
    rows = [[Cell(each["text"]), Cell(times(each["holds_to"])), Cell(_break(each), "bad")] for each in found]
    if every:
        rows += [[Cell(each["text"]), Cell(times(each["holds_to"]), "good"), Cell(UNKNOWN)] for each in held]
    elif held:
        others = f"{len(held)} {'others' if found else 'targets'}"
        rows.append([Cell(others), Cell(times(max(each["holds_to"] or 0.0 for each in held))), Cell(UNKNOWN)])
    headers = [Header(name) for name in ("target, as it is", "holds to", "breaks at")]
    return Grid("When each target breaks", headers, rows)


def bought(document: Document) -> Grid:
    """What was tried at the first break of the scenario as it is, step by step."""
    buy = document["buy"] or {"rate": None, "steps": []}
    rows = []
    for step, tried in enumerate(buy["steps"], start=1):
        for offer in tried["offers"]:
            taken = offer["pool"] == tried["best"]
            meets = ("yes" if offer["meets"] else "no") + (" <- taken" if taken else "")
            rows.append(
                [
                    Cell(f"{step}: one more of {offer['pool']}"),
                    Cell(usd(offer["usd_per_month"])),
                    _judged(offer["headlines"], document["target_attainment"], offer["meets"]),
                    Cell(meets, "good" if taken and offer["meets"] else ""),
                ]
            )
    headers = (f"bought at {times(buy['rate'])}", "USD a month", "within targets", "meets all")
    return Grid("What to buy next", [Header(name) for name in headers], rows)


def mended(document: Document) -> Grid:
    """What to buy for each change that breaks today's traffic, and what it brings."""
    rows = []
    for row in document["variations"][1:]:
        if row["buy"] is None:
            continue
        last = row["buy"]["steps"][-1]
        offer = next(each for each in last["offers"] if each["pool"] == last["best"])
        rows.append(
            [
                Cell(str(row["name"])),
                Cell(replicas(row["buy"], apart=False)),
                Cell(usd(row["buy"]["usd_per_month"])),
                _judged(today(row)["headlines"], document["target_attainment"], False),
                _judged(offer["headlines"], document["target_attainment"], offer["meets"]),
                Cell("yes", "good") if row["buy"]["meets"] else Cell("no", "bad"),
            ]
        )
    names = ("change", "buy", "USD a month", "within targets before", "and after", "meets all")
    return Grid("To bear a change at today's traffic", [Header(name) for name in names], rows)


def tiles(document: Document) -> list[tuple[str, str, str]]:
    """The fleet as it is in six numbers: (name, value, note)."""
    base, buy = document["variations"][0], document["buy"]
    cell = today(base)
    head = cell.get("headlines", {})
    ttft_s = head.get("ttft_p99_s")
    end = f"breaks at {times(base['breaks_at'])}" if base["breaks_at"] else "the highest rate tried"
    found = [
        ("holds to", times(base["holds_to"]), end),
        ("within targets", percent(head.get("slo_attainment")), "today"),
        ("p99 TTFT", UNKNOWN if ttft_s is None else f"{number(ttft_s)} s", "today"),
        ("USD a month", usd(cell.get("cost_usd_per_month")), ""),
        ("USD per 1M tokens out", usd(cell.get("cost_usd_per_1m_output_tokens")), "today"),
    ]
    if buy and buy["steps"]:
        what = f"{replicas(buy)} for {times(buy['rate'])}"
        found.append(("buy next, USD a month", usd(buy["usd_per_month"]), what))
    return found


def badges(document: Document) -> list[Cell]:
    """What qualifies every number, at the top: does it hold today, the policy, step times, what is missing."""
    return list(_badges(document))


def _badges(document: Document) -> Iterator[Cell]:
    base = document["variations"][0]
    cell = today(base)
    if "meets" in cell:
        meets = cell["meets"]
        yield Cell("every target is met today" if meets else "targets are missed today", "good" if meets else "bad")
    tried = len(document["policies_tried"])
    yield Cell(f"routed by {document['policy']}" + (f", the best of {tried}" if tried else ""))
    ours = _bases(base)
    guessed = [name for name, basis in ours if basis in _UNMEASURED]
    if guessed:
        yield Cell(f"step times of {', '.join(guessed)} are not measured", "warn")
    elif ours:
        yield Cell(f"step times {' and '.join(sorted({BASES.get(basis, basis) for _, basis in ours}))}", "good")
    others = [row for row in document["variations"][1:] if set(_bases(row)) - set(ours)]
    if any(basis in _UNMEASURED for row in others for _, basis in set(_bases(row)) - set(ours)):
        yield Cell("some changes rest on step times that are not measured: see the notes", "warn")
    cells = [each for row in document["variations"] for each in row["cells"]]
    if any(pool["extrapolated"] for each in cells for pool in each.get("by_pool", {}).values()):
        yield Cell("extrapolated: some load lies beyond what was measured", "warn")
    failed = sum("failed" in each for each in cells)
    if failed:
        yield Cell(f"{failed} cells failed", "bad")
    if document["interrupted"]:
        yield Cell("interrupted: cells are missing", "bad")


def _bases(row: Row) -> list[tuple[str, str]]:
    """(pool, what its step times rest on), pool by pool; empty where nothing was replayed."""
    pools: Mapping[str, Any] = next((cell["by_pool"] for cell in row["cells"] if "by_pool" in cell), {})
    return [(str(name), str(pool["basis"])) for name, pool in pools.items()]


def today(row: Row) -> Mapping[str, Any]:
    """The row's cell for today's traffic; empty where it was not replayed."""
    found: Mapping[str, Any] = next((c for c in row["cells"] if c["rate"] == 1.0 and "headlines" in c), {})
    return found


def times(rate: float | None) -> str:
    """A rate as a multiple of today's traffic: `x2.58`."""
    return UNKNOWN if rate is None else f"x{rate:.3g}"


def replicas(buy: Mapping[str, Any] | None, *, apart: bool = True) -> str:
    """What is bought: `2 more of small`; with `apart`, whether it is not enough."""
    if not buy or not buy["replicas"]:
        return ""
    said = " and ".join(f"{count} more of {pool}" for pool, count in buy["replicas"].items())
    return f"{said} (not enough)" if apart and not buy["meets"] else said


def impossible(document: Document) -> list[str]:
    """The changes that cannot be, and why, a line each."""
    return [f"{each['name']}: {each['reason']}" for each in document["impossible"]]


def notes(document: Document) -> list[str]:
    """What a reader must know: of the whole, then of single changes."""
    own = [f"{row['name']}: {note}" for row in document["variations"][1:] for note in row["notes"]]
    return [*document["notes"], *own]


def _share(cell: Mapping[str, Any], target: float, star: str) -> Cell:
    """The share within targets, marked where all are met; why there is none."""
    if "headlines" not in cell:
        return Cell("failed", "bad") if "failed" in cell else Cell("..." if "skipped" in cell else UNKNOWN)
    found = _judged(cell["headlines"], target, cell["meets"])
    tone = "bad" if cell["stability"] == "OVERLOADED" else found.tone
    return Cell(found.text + (star if cell["meets"] else " " * len(star)), tone, found.bar)


def _judged(head: Mapping[str, Any], target: float, meets: bool) -> Cell:
    """The share within targets; only where every target is met it is good."""
    found = attainment(head["slo_attainment"], target)
    tone = "good" if meets else "warn" if found.tone == "good" else found.tone
    return found._replace(tone=tone)


def _reach(row: Row) -> Cell:
    """How far a row holds, toned by whether it bears today's traffic."""
    holds_to, breaks_at = row["holds_to"], row["breaks_at"]
    if holds_to is None and breaks_at is None:
        return Cell(UNKNOWN)
    return Cell(times(holds_to), "good" if (holds_to or 0.0) >= 1.0 else "bad")


def _break(target: Mapping[str, Any]) -> str:
    again: Sequence[float] = target["holds_again_at"]
    return times(target["breaks_at"]) + (f", holds again at {', '.join(map(times, again))}" if again else "")


def _signed(amount: float | None) -> str:
    if amount is None:
        return ""
    return "the same" if abs(amount) < 0.5 else f"{'-' if amount < 0 else '+'}{usd(abs(amount))}"
