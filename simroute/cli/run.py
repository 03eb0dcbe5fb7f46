"""`simroute run`: replay a scenario under its policies, show, store and assert. Imports the library in the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from simroute.cli.assertions import Assertion, JunitOpt, enforce, parse, ready, record
from simroute.cli.scenario import ExactOpt, QuietOpt, ScenarioArg, SeedOpt, SetOpt, TraceOpt, warn
from simroute.cli.split import SplitOpt, WarmupOpt, split_asked
from simroute.cli.workers import CacheOpt, ExecutorOpt, JobsOpt, RayAddressOpt, ResumeOpt, cache_at

if TYPE_CHECKING:
    from simroute.scenario.build import Built
    from simroute.scenario.run import RunResult

EXIT_INTERRUPTED = 130
ReplicatesOpt = Annotated[
    int | None,
    typer.Option(
        "--replicates",
        metavar="N",
        min=0,
        max=10_000,
        help="Replay N times more with step times drawn within their error, for intervals.",
    ),
]
PolicyOpt = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="P", help="Run only this policy of the scenario, or any other (repeatable)."),
]
OutputOpt = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Write summary, request log, report and manifest there."),
]
AssertOpt = Annotated[
    list[str] | None,
    typer.Option("--assert", metavar="A", help="Fail unless this holds, as 'ttft_p99 < 2s' (repeatable)."),
]
_UNCHECKED = ", assertions were not checked"
_SUITE = "simroute run"


def run(
    scenario: ScenarioArg,
    trace: TraceOpt = None,
    policy: PolicyOpt = None,
    set_: SetOpt = None,
    replicates: ReplicatesOpt = None,
    split: SplitOpt = None,
    warmup: WarmupOpt = None,
    output: OutputOpt = None,
    seed: SeedOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print summary.json to stdout, and nothing else.")] = False,
    quiet: QuietOpt = False,
    exact: ExactOpt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, say what would run.")] = False,
    jobs: JobsOpt = None,
    executor: ExecutorOpt = "processes",
    ray_address: RayAddressOpt = None,
    cache: CacheOpt = None,
    resume: ResumeOpt = True,
    assert_: AssertOpt = None,
    junit: JunitOpt = None,
) -> None:
    """Replay a scenario's traffic under each of its policies and compare latency, quality and cost.

    An assertion must hold for every policy, or for one: 'quant_aware: slo_attainment >= 95%'. Ctrl-C keeps what is
    done, marked as partial.
    """
    from simroute.results.store import prepare
    from simroute.scenario.build import build
    from simroute.scenario.loader import read
    from simroute.scenario.run import chosen

    loaded = read(scenario, overrides=set_ or (), traces=trace or ())
    labels = [spec.shown for spec in chosen(loaded.scenario, policy)]
    assertions = [parse(text, labels) for text in assert_ or ()]
    if output and not dry_run:
        prepare(output)
    ready(None if dry_run else junit)
    windows = split_asked(split, replicates, warmup, jobs=jobs, executor=executor, ray_address=ray_address, cache=cache)
    built = build(loaded.scenario)
    if not quiet:
        warn(loaded.warnings)
    if dry_run:
        typer.echo(_plan(built, labels))
        return
    if windows:
        kept = cache_at(cache, output, resume=resume, quiet=quiet)
        stop = partial(_stop, assertions=assertions, junit=junit)
        result = windows.run(built, policy, kept, stop, quiet=quiet, seed=seed, exact=exact)
    else:
        options = {"seed": seed, "exact": exact, "replicates": replicates, "jobs": jobs}
        result = _whole(built, policy, labels, quiet=quiet, **options)
    _finish(result, output, labels, assertions, junit, json=json, quiet=quiet, own_traces=not trace)


def _finish(
    result: RunResult,
    output: Path | None,
    labels: Sequence[str],
    assertions: Sequence[Assertion],
    junit: Path | None,
    *,
    json: bool,
    quiet: bool,
    own_traces: bool,
) -> None:
    """Write, show and assert."""
    if output:
        # What a scenario says of its own traces may be untrue of others.
        _store(output, result, description=result.built.scenario.description if own_traces else "")
    _show(result, json=json, quiet=quiet, output=output)
    if result.interrupted:
        begun = {r.summary["policy"] for r in result.results}
        missing = ", ".join(label for label in labels if label not in begun) or "none"
        _stop(f"interrupted: results are partial (not begun: {missing})", assertions=assertions, junit=junit)
    summaries = {r.summary["policy"]: r.summary for r in result.results}
    enforce(assertions, summaries, suite=_SUITE, junit=junit)


def _stop(why: str, *, assertions: Sequence[Assertion], junit: Path | None) -> NoReturn:
    """Say that the run was interrupted, and leave."""
    warn([why + _UNCHECKED * bool(assertions)])
    record(junit, _SUITE, [(each, ()) for each in assertions], skipped="the run was interrupted")
    raise typer.Exit(EXIT_INTERRUPTED)


def _whole(
    built: Built, policies: Sequence[str] | None, labels: Sequence[str], *, quiet: bool, **options: Any
) -> RunResult:
    """Every policy's replay in one piece, with a progress bar each."""
    from simroute.cli.progress import shown_progress
    from simroute.scenario.run import run as run_scenario

    with shown_progress(labels, hidden=quiet) as progress:
        return run_scenario(built, policies, progress=progress, **options)


def _show(result: RunResult, *, json: bool, quiet: bool, output: Path | None) -> None:
    if json:
        from simroute.results.store import json_text

        typer.echo(json_text(result.summary()), nl=False)
        return
    if quiet:
        return
    from simroute.report.tables import print_results
    from simroute.report.text import traffic

    built = result.built
    replayed = [f"traffic: {traffic(built.trace_names(), r.fleet)}" for r in result.results[:1]]
    print_results([r.summary for r in result.results], sys.stdout, notes=(*replayed, *built.notes, *built.stated()))
    if output:
        typer.echo(f"\nwritten: {output}/ (report.html, summary.json, requests.parquet, manifest.json)")


def _store(directory: Path, result: RunResult, *, description: str) -> None:
    from simroute.report.html import render
    from simroute.report.inputs import ReportInput
    from simroute.results.store import write

    built, scenario = result.built, result.built.scenario
    manifest = result.manifest()
    report = ReportInput(
        scenario=scenario.name,
        results=[(r.summary, r.fleet) for r in result.results],
        slo=built.slo,
        assumptions=built.stated(),
        manifest=manifest,
        description=description,
        traces=built.trace_names(),
        notes=built.notes,
    )
    write(directory, result.summary(), [r.fleet for r in result.results], manifest, lambda: render(report))


def _plan(built: Built, labels: Sequence[str]) -> str:
    """What a run would do: the traffic, each pool with its memory and price, the policies."""
    trace = built.trace
    rate = len(trace) / max(trace.duration_s, 1e-9)
    lines = [
        f"traffic   {' + '.join(built.trace_names())}: "
        f"{len(trace):,} requests in {trace.duration_s / 3600:.3g} h ({rate:.3g} a second), "
        f"{trace.input_tokens.mean():,.0f} tokens in and {trace.output_tokens.mean():,.0f} out on average"
    ]
    for pool, variant in zip(built.pools, built.variants, strict=True):
        info, engine = pool.variant, pool.engine
        gpus = pool.replicas * pool.gpus_per_replica
        lines.append(
            f"pool      {pool.name}: {pool.replicas} x {info.model} {info.quantization} on {pool.gpus_per_replica} "
            f"{info.gpu}: {engine.num_gpu_blocks:,} KV blocks ({variant.capacity.source}), max_model_len "
            f"{engine.max_model_len:,}, ${info.usd_per_1m_tokens:.2f} per 1M output tokens at full load, "
            f"${gpus * variant.hardware.usd_per_gpu_hour:,.2f} an hour ({variant.hardware.price_source})"
        )
    lines.append(f"policies  {', '.join(labels)}")
    return "\n".join([*lines, *(f"note      {note}" for note in built.notes)])
