"""`simroute whatif`: a matrix of changes and rates, one capacity report. Imports the library inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simroute.cli.assertions import JunitOpt
from simroute.cli.run import EXIT_INTERRUPTED
from simroute.cli.scenario import ScenarioArg, TraceOpt
from simroute.cli.workers import CacheOpt, ExecutorOpt, JobsOpt, RayAddressOpt, ResumeOpt, cache_at

if TYPE_CHECKING:
    from simroute.cli.assertions import Assertion
    from simroute.planner.whatif import WhatIf

DOCUMENT = "whatif.json"
_SUITE = "simroute whatif"
_EXAMPLES = "'holds_to >= 1.5' or 'zone-a lost: slo_attainment >= 99%'"
_Texts = list[str] | None


RateOpt = Annotated[
    str | None, typer.Option("--rate", metavar="R,R,...", help="Times today's traffic. [0.5,1,1.5,2,3,5]")
]
ChangeSetOpt = Annotated[
    _Texts, typer.Option("--set", metavar="PATH=V,V,...", help="A change for each of these values (repeatable).")
]
InputOpt = Annotated[str | None, typer.Option("--input", metavar="X,X,...", help="Prompts X times as long.")]
AnswersOpt = Annotated[str | None, typer.Option("--answers", metavar="X,X,...", help="Answers X times as long.")]
PriceOpt = Annotated[str | None, typer.Option("--price", metavar="X,X,...", help="GPUs X times as expensive.")]
MixOpt = Annotated[_Texts, typer.Option("--mix", metavar="CLASS=W,...", help="Other weights of classes (repeatable).")]
LoseOpt = Annotated[
    _Texts, typer.Option("--lose", metavar="WHAT", help="zone=Z, pool=P or pool=P:N is gone (repeatable).")
]
ChangeOpt = Annotated[
    _Texts, typer.Option("--change", metavar="YAML", help="Changes: a YAML file, or a mapping (repeatable).")
]
PolicyOpt = Annotated[
    _Texts, typer.Option("--policy", metavar="P", help="Under this policy; further ones are changes. [the best]")
]
BaseOpt = Annotated[
    _Texts, typer.Option("--base", metavar="PATH=VALUE", help="Override a value of the scenario (repeatable).")
]
PrecisionOpt = Annotated[float, typer.Option("--precision", metavar="P", help="Narrow breaks to this share.")]
BuyOpt = Annotated[bool, typer.Option("--buy/--no-buy", help="Look for what to buy at the first break.")]
OutputOpt = Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="Write whatif.json there.")]
AssertOpt = Annotated[
    _Texts, typer.Option("--assert", metavar="A", help="Fail unless this holds, as 'holds_to >= 2' (repeatable).")
]


def whatif(
    scenario: ScenarioArg,
    trace: TraceOpt = None,
    rate: RateOpt = None,
    set_: ChangeSetOpt = None,
    input_: InputOpt = None,
    output_tokens: AnswersOpt = None,
    price: PriceOpt = None,
    mix: MixOpt = None,
    lose: LoseOpt = None,
    change: ChangeOpt = None,
    policy: PolicyOpt = None,
    base: BaseOpt = None,
    precision: PrecisionOpt = 0.1,
    buy: BuyOpt = True,
    output: OutputOpt = None,
    cache: CacheOpt = None,
    resume: ResumeOpt = True,
    jobs: JobsOpt = None,
    executor: ExecutorOpt = "processes",
    ray_address: RayAddressOpt = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed to use in place of the scenario's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print whatif.json to stdout, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no warnings, no tables.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Run engines step by step: same times, slower.")] = False,
    assert_: AssertOpt = None,
    junit: JunitOpt = None,
) -> None:
    """Change a scenario in many ways, at many rates: when does each target break, what does it cost, what to buy next.

    Each change is set beside the scenario as it is, at every rate. An assertion is on every row, or on one:
    'as it is: holds_to >= 2'. Ctrl-C keeps what is done, and the next run goes on from there.
    """
    from simroute.cli.change_options import changes_of, numbers
    from simroute.planner.executor import executor_named
    from simroute.scenario.loader import read

    loaded = read(scenario, overrides=base or (), traces=trace or ())
    changes = changes_of(set_, input_, output_tokens, price, mix, lose, change)
    policies = [f"policy {name}" for name in (policy or ())[1:]]
    assertions = _parsed(assert_ or (), ["as it is", *(each.shown for each in changes), *policies])
    options: dict[str, Any] = {"policies": policy, "precision": precision, "buy": buy, "seed": seed, "exact": exact}
    options |= {"rates": numbers("--rate", rate)} if rate else {}
    _ready(output, junit)
    warn = _nothing if quiet else _warn
    for warning in loaded.warnings:
        warn(warning)
    kept = cache_at(cache, output, resume=resume, quiet=quiet)
    options |= {"executor": executor_named(executor, jobs=jobs, ray_address=ray_address), "cache": kept}
    found = _studied(quiet, loaded.scenario, changes, **options)
    document = found.document()
    _show(document, found.cells.counts(), output, json=json, quiet=quiet)
    if found.interrupted:
        warn("interrupted: cells are missing" + ", assertions were not checked" * bool(assertions))
    _enforce(assertions, document, junit)


def _studied(quiet: bool, *arguments: Any, **options: Any) -> WhatIf:
    """The study, with a progress bar."""
    from simroute.cli.progress import shown_share
    from simroute.planner.whatif import whatif as study

    with shown_share("what if", hidden=quiet) as progress:
        return study(*arguments, **options, progress=progress)


def _warn(line: str) -> None:
    typer.echo(f"warning: {line}", err=True)


def _nothing(line: str) -> None:
    pass


def _parsed(texts: Sequence[str], rows: Sequence[str]) -> list[Assertion]:
    from simroute.cli.assertions import parse

    return [parse(text, rows, _metrics(), what="row", examples=_EXAMPLES) for text in texts]


def _ready(output: Path | None, junit: Path | None) -> None:
    """Prove that results can be written, before anything runs."""
    from simroute.cli.assertions import ready
    from simroute.results.store import prepare

    if output:
        prepare(output)
    ready(junit)


def _enforce(assertions: Sequence[Assertion], document: Mapping[str, Any], junit: Path | None) -> None:
    """Exit with 99 unless all hold (of a change that is impossible nothing does), with 130 where it was interrupted."""
    from simroute.cli.assertions import enforce, record

    if document["interrupted"]:
        record(junit, _SUITE, [(each, ()) for each in assertions], skipped="the study was interrupted")
        raise typer.Exit(EXIT_INTERRUPTED)
    untested: dict[str, dict[str, Any]] = {each["name"]: {} for each in document["impossible"]}
    rows = {row["name"]: _observed(row) for row in document["variations"]}
    enforce(assertions, untested | rows, suite=_SUITE, junit=junit)


def _show(
    document: Mapping[str, Any], counts: Mapping[str, int], output: Path | None, *, json: bool, quiet: bool
) -> None:
    """Write whatif.json, and print it or the report."""
    from simroute.results.store import json_text, write_text

    if output:
        write_text(output / DOCUMENT, json_text(document))
    if json:
        typer.echo(json_text(document), nl=False)
    elif not quiet:
        typer.echo(_page(document, counts, f"{output}/{DOCUMENT}" if output else None))


def _metrics() -> dict[str, tuple[tuple[str, ...], str]]:
    """What can be asserted of a row: how far it carries, and its headline numbers for today's traffic."""
    numbers = {"ttft_p99": "seconds", "tpot_p99": "seconds", "e2e_p99": "seconds"}
    metrics: dict[str, tuple[tuple[str, ...], str]]
    metrics = {name: ((f"{name}_s",), dimension) for name, dimension in numbers.items()}
    shares = ("slo_attainment", "quality_mean", "below_floor_share", "gpu_busy")
    metrics |= {name: ((name,), "share") for name in shares}
    metrics |= {name: ((name,), "number") for name in ("holds_to", "goodput_rps")}
    metrics |= {"cost_usd_per_month": (("cost_usd_per_month",), "usd"), "stability": (("stability",), "label")}
    return metrics


def _observed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a row that assertions are on."""
    today: Mapping[str, Any] = next((cell for cell in row["cells"] if cell["rate"] == 1.0 and "headlines" in cell), {})
    seen = {key: today.get(key) for key in ("cost_usd_per_month", "stability")}
    return {"holds_to": row["holds_to"] or 0.0, **seen, **today.get("headlines", {})}


def _page(document: Mapping[str, Any], counts: Mapping[str, int], written: str | None) -> str:
    """The report for the terminal."""
    from simroute.cli.plain import aligned

    lines = [document["answer"], "", *aligned(*_overview(document)), "", *aligned(*_base(document))]
    lines += ["", *aligned(*_breaks(document))]
    lines += [line for part in (_bought(document), _impossible(document)) if part for line in ("", *part)]
    came = f"{counts['cells']} cells: {counts['simulated']} simulated, {counts['reused']} reused"
    came += f", {counts['failed']} failed" if counts["failed"] else ""
    changed = document["variations"][1:]
    notes = [*document["notes"], *document["assumptions"]]
    notes += [f"{row['name']}: {note}" for row in changed for note in row["notes"]]
    lines += ["", *(f"note: {note}" for note in notes), came]
    return "\n".join(lines + ([f"written: {written}"] if written else []))


_Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def _overview(document: Mapping[str, Any]) -> _Table:
    """One row a variation, one column a rate of the matrix: the share within targets, and how far it carries."""
    rates = document["rates"]
    headers = ["within targets at x traffic", *(f"{rate:g}" for rate in rates), "holds to", "breaks at", "USD a month"]
    rows = []
    for row in document["variations"]:
        cells = {cell["rate"]: cell for cell in row["cells"]}
        today = cells.get(1.0, {})
        ends = [_rate(row["holds_to"]), _rate(row["breaks_at"]) if row["breaks_at"] else "-"]
        rows.append([row["name"], *(_share(cells.get(rate, {})) for rate in rates), *ends, _usd(today)])
    return headers, rows


def _base(document: Mapping[str, Any]) -> _Table:
    """The scenario as it is, at every rate that was replayed."""
    from simroute.report.text import milliseconds, number, percent, usd

    headers = ["as it is, x traffic", "requests/s", "within targets", "TTFT p99, s", "TPOT p99, ms", "E2E p99, s"]
    headers += ["GPU busy", "USD per 1M out", "state"]
    rows = []
    for cell in document["variations"][0]["cells"]:
        if "headlines" not in cell:
            rows.append([f"{cell['rate']:g}", *[""] * 7, cell.get("skipped") or cell["failed"]])
            continue
        head = cell["headlines"]
        shown = [number(cell["requests_per_s"]), _share(cell), number(head["ttft_p99_s"])]
        shown += [milliseconds(head["tpot_p99_s"]), number(head["e2e_p99_s"]), percent(head["gpu_busy"])]
        rows.append([f"{cell['rate']:g}", *shown, usd(cell["cost_usd_per_1m_output_tokens"]), cell["stability"]])
    return headers, rows


def _breaks(document: Mapping[str, Any]) -> _Table:
    """Every target of the scenario as it is, the first to break first."""
    from simroute.planner.whatif_document import said

    targets = document["variations"][0]["breaks"]
    found = sorted((each for each in targets if each["breaks_at"]), key=lambda each: float(each["breaks_at"]))
    rows = [[said(each), _rate(each["holds_to"]), _rate(each["breaks_at"])] for each in found]
    if len(found) < len(targets):
        others = f"{len(targets) - len(found)} {'others' if found else 'targets'}"
        rows.append([others, _rate(max((each["holds_to"] or 0.0 for each in targets), default=0.0)), "-"])
    return ["target, as it is", "holds to", "breaks at"], rows


def _bought(document: Mapping[str, Any]) -> list[str]:
    from simroute.cli.plain import aligned
    from simroute.report.text import percent, usd

    buy = document["buy"]
    if not buy or not buy["steps"]:
        return []
    rows = []
    for number, step in enumerate(buy["steps"], start=1):
        for offer in step["offers"]:
            mark = " <- taken" if offer["pool"] == step["best"] else ""
            attained = percent(offer["headlines"]["slo_attainment"])
            meets = "yes" if offer["meets"] else "no"
            rows.append([f"{number}: one more of {offer['pool']}", usd(offer["usd_per_month"]), attained, meets + mark])
    return list(aligned([f"bought at x{buy['rate']:g}", "USD a month", "within targets", "meets all"], rows))


def _impossible(document: Mapping[str, Any]) -> list[str]:
    return [f"impossible: {each['name']}: {each['reason']}" for each in document["impossible"]]


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"x{rate:.3g}"


def _share(cell: Mapping[str, Any]) -> str:
    """The share within targets, with a star where all targets are met."""
    from simroute.report.text import percent

    if "headlines" not in cell:
        return "failed" if "failed" in cell else "..." if "skipped" in cell else "-"
    return percent(cell["headlines"]["slo_attainment"]) + ("*" if cell["meets"] else " ")


def _usd(cell: Mapping[str, Any]) -> str:
    from simroute.report.text import usd

    return usd(cell.get("cost_usd_per_month"))
