"""`simroute compare`: policies over many worlds, and which differences are noise. Imports the library inside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simroute.cli.assertions import METRICS, Assertion, JunitOpt, enforce, parse, ready, record
from simroute.cli.run import EXIT_INTERRUPTED
from simroute.cli.scenario import ExactOpt, QuietOpt, ScenarioArg, SeedOpt, SetOpt, TraceOpt, warn

if TYPE_CHECKING:
    from simroute.scenario.compare import Comparison

_SUITE = "simroute compare"
COMPARISON, PAGE = "compare.json", "compare.html"
PolicyOpt = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="P", help="Compare this policy of the scenario, or any other (repeatable)."),
]
BaselineOpt = Annotated[str | None, typer.Option("--baseline", metavar="P", help="Policy to compare with. [the first]")]
BlockOpt = Annotated[float, typer.Option("--block", metavar="S", help="Seconds of traffic that are resampled as one.")]
OutputOpt = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Write compare.json and compare.html there.")
]
DecisionsOpt = Annotated[
    Path | None, typer.Option("--decisions", metavar="FILE", help="Log every decision and its regret there (.parquet).")
]
AssertOpt = Annotated[
    list[str] | None,
    typer.Option("--assert", metavar="A", help="Fail unless this holds, as 'ttft_p99.high < 0s' (repeatable)."),
]
_EXAMPLES = "'ttft_p99.high < 0s' or 'quant_aware: slo_attainment.low > 0%'"
_NAMES = {
    "ttft_p50": "ttft_s.p50",
    "ttft_p99": "ttft_s.p99",
    "tpot_p99": "tpot_s.p99",
    "e2e_p99": "e2e_s.p99",
    "slo_attainment": "slo_attainment",
    "goodput_rps": "goodput_rps",
    "cost_usd_per_month": "cost_usd_per_month",
    "cost_usd_per_1m_output_tokens": "cost_usd_per_1m_output_tokens",
    "quality_mean": "quality.mean",
}
"""Every headline number by its name in assertions."""


def compare(
    scenario: ScenarioArg,
    trace: TraceOpt = None,
    policy: PolicyOpt = None,
    set_: SetOpt = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Resampled worlds beside the trace itself.")] = 10,
    baseline: BaselineOpt = None,
    block: BlockOpt = 60.0,
    level: Annotated[float, typer.Option("--level", metavar="L", help="Level of the intervals.")] = 0.95,
    output: OutputOpt = None,
    decisions: DecisionsOpt = None,
    seed: SeedOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print compare.json to stdout, and nothing else.")] = False,
    quiet: QuietOpt = False,
    exact: ExactOpt = False,
    assert_: AssertOpt = None,
    junit: JunitOpt = None,
) -> None:
    """Compare policies in worlds that all of them share: who wins, by how much, and whether that is noise.

    World 0 is the trace; in each of the N others traffic is resampled by blocks of time, step times are drawn within
    their error, and luck is new. An assertion is on a difference to the baseline: 'quant_aware: ttft_p99.high < 0s'.
    """
    from simroute.cli.progress import shown_progress
    from simroute.scenario.compare import checked
    from simroute.scenario.compare import compare as compare_policies
    from simroute.scenario.loader import read
    from simroute.scenario.run import chosen

    loaded = read(scenario, overrides=set_ or (), traces=trace or ())
    specs = chosen(loaded.scenario, policy)
    first = checked(specs, seeds=seeds, baseline=baseline, level=level)
    labels = [spec.shown for spec in specs]
    others = [label for label in labels if label != first]
    assertions = [parse(text, others, _metrics(), examples=_EXAMPLES) for text in assert_ or ()]
    _prepare(output, decisions)
    ready(junit)
    warn(() if quiet else loaded.warnings)
    with shown_progress(labels, hidden=quiet) as progress:
        result = compare_policies(
            loaded.scenario,
            labels,
            seeds=seeds,
            baseline=first,
            block_s=block,
            level=level,
            seed=seed,
            exact=exact,
            decisions=decisions is not None,
            progress=progress,
        )
    document = result.document()
    written = _store(result, document, output, decisions)
    _show(document, json=json, quiet=quiet, written=written)
    if result.interrupted:
        _interrupted(result.worlds, seeds, assertions, junit)
    enforce(assertions, document["differences"], suite=_SUITE, junit=junit)


def _interrupted(worlds: int, seeds: int, assertions: Sequence[Assertion], junit: Path | None) -> None:
    """Say what is missing, and leave."""
    unchecked = ", assertions were not checked" * bool(assertions)
    warn([f"interrupted: {worlds} of {seeds} worlds were compared{unchecked}"])
    record(junit, _SUITE, [(each, ()) for each in assertions], skipped="the comparison was interrupted")
    raise typer.Exit(EXIT_INTERRUPTED)


def _metrics() -> dict[str, tuple[tuple[str, ...], str]]:
    """What can be asserted: the mean and both ends of the interval of every difference, in the unit of its number."""
    return {
        f"{name}.{end}": ((key, end), METRICS[name][1])
        for name, key in _NAMES.items()
        for end in ("mean", "low", "high")
    }


def _prepare(output: Path | None, decisions: Path | None) -> None:
    """Prove that results can be written, before anything runs."""
    from simroute.errors import OutputError
    from simroute.results.store import prepare

    if decisions and decisions.is_dir():
        raise OutputError(f"--decisions {decisions}: is a folder; give a file")
    for folder in filter(None, (output, decisions and decisions.parent)):
        prepare(folder)


def _store(result: Comparison, document: dict[str, Any], output: Path | None, decisions: Path | None) -> list[str]:
    """Write what was asked for; gives the paths written."""
    from simroute.results.store import json_text, write_tables, write_text

    written = []
    if decisions and result.decisions:
        write_tables(decisions, result.decision_tables())
        written.append(str(decisions))
    if output:
        from simroute.report.compare_page import render

        write_text(output / COMPARISON, json_text(document))
        write_text(output / PAGE, render(document))
        written.append(f"{output}/ ({PAGE}, {COMPARISON})")
    return written


def _show(document: dict[str, Any], *, json: bool, quiet: bool, written: list[str]) -> None:
    if json:
        from simroute.results.store import json_text

        typer.echo(json_text(document), nl=False)
        return
    if quiet:
        return
    from simroute.report.compare import print_comparison

    print_comparison(document, sys.stdout)
    if written:
        typer.echo(f"\nwritten: {', '.join(written)}")
