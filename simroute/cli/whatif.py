"""`simroute whatif`: a matrix of changes and rates, one capacity report. Imports the library inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simroute.cli.assertions import JunitOpt
from simroute.cli.run import EXIT_INTERRUPTED
from simroute.cli.scenario import ExactOpt, QuietOpt, ScenarioArg, SeedOpt, TraceOpt, warn
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
SpotOpt = Annotated[str | None, typer.Option("--spot", metavar="SHARE,...", help="That share of replicas on spot.")]
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
BuyOpt = Annotated[bool, typer.Option("--buy/--no-buy", help="Look for what to buy where targets break.")]
OutputOpt = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Write whatif.json, page and tables there.")
]
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
    spot: SpotOpt = None,
    change: ChangeOpt = None,
    policy: PolicyOpt = None,
    base: BaseOpt = None,
    precision: PrecisionOpt = 0.1,
    buy: BuyOpt = True,
    output: OutputOpt = None,
    seed: SeedOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print whatif.json to stdout, and nothing else.")] = False,
    quiet: QuietOpt = False,
    exact: ExactOpt = False,
    jobs: JobsOpt = None,
    executor: ExecutorOpt = "processes",
    ray_address: RayAddressOpt = None,
    cache: CacheOpt = None,
    resume: ResumeOpt = True,
    assert_: AssertOpt = None,
    junit: JunitOpt = None,
) -> None:
    """Change a scenario in many ways, at many rates: when does each target break, what does it cost, what to buy next.

    Each change is set beside the scenario as it is, at every rate. An assertion is on every row, or on one:
    'as it is: holds_to >= 2'. Ctrl-C keeps what is done, and the next run goes on from there.
    """
    from simroute.cli.change_options import changes_of, numbers
    from simroute.planner.execution.executor import executor_named
    from simroute.scenario.loader import read

    loaded = read(scenario, overrides=base or (), traces=trace or (), option="--base")
    changes = changes_of(set_, input_, output_tokens, price, mix, lose, spot, change)
    policies = [f"policy {name}" for name in (policy or ())[1:]]
    assertions = _parsed(assert_ or (), ["as it is", *(each.shown for each in changes), *policies])
    options: dict[str, Any] = {"policies": policy, "precision": precision, "buy": buy, "seed": seed, "exact": exact}
    options |= {"rates": numbers("--rate", rate)} if rate else {}
    _ready(output, junit)
    warn(() if quiet else loaded.warnings)
    kept = cache_at(cache, output, resume=resume, quiet=quiet)
    options |= {"executor": executor_named(executor, jobs=jobs, ray_address=ray_address), "cache": kept}
    found = _studied(quiet, loaded.scenario, changes, **options)
    document = found.document()
    if output:
        _store(document, output)
    if json or not quiet:
        _show(document, found.cells.counts(), output, json=json)
    if found.interrupted:
        unchecked = ", assertions were not checked" * bool(assertions)
        warn([f"interrupted: cells are missing{unchecked}; {kept.going_on('what is done is')}"])
    _enforce(assertions, document, junit)


def _studied(quiet: bool, *arguments: Any, **options: Any) -> WhatIf:
    """The study, with a progress bar."""
    from simroute.cli.progress import shown_share
    from simroute.planner.whatif import whatif as study

    with shown_share("what if", hidden=quiet) as progress:
        return study(*arguments, **options, progress=progress)


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


def _store(document: Mapping[str, Any], output: Path) -> None:
    """whatif.json, and the same as a page, Markdown and CSV."""
    from simroute.report.whatif.page import render
    from simroute.report.whatif.text import csv_text, markdown
    from simroute.results.store import json_text, write_text

    texts = {DOCUMENT: json_text(document), "whatif.html": render(document)}
    texts |= {"whatif.md": markdown(document), "whatif.csv": csv_text(document)}
    for name, text in texts.items():
        write_text(output / name, text)


def _show(document: Mapping[str, Any], counts: Mapping[str, int], output: Path | None, *, json: bool) -> None:
    """Print whatif.json, or the report."""
    from simroute.report.whatif.text import terminal
    from simroute.results.store import json_text

    if json:
        typer.echo(json_text(document), nl=False)
        return
    typer.echo(terminal(document, counts))
    if output:
        typer.echo(f"written: {output}/ ({DOCUMENT}, whatif.html, whatif.md, whatif.csv)")


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
