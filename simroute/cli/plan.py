"""`simroute plan`: the cheapest fleet that meets the targets. Imports the library in the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simroute.cli.assertions import JunitOpt, enforce, parse, ready, record
from simroute.cli.run import EXIT_INTERRUPTED
from simroute.cli.scenario import ExactOpt, QuietOpt, SeedOpt, SetOpt, TraceOpt, warn
from simroute.cli.workers import CacheOpt, ExecutorOpt, JobsOpt, RayAddressOpt, ResumeOpt, cache_at

if TYPE_CHECKING:
    from simroute.planner.execution.cache import Cache
    from simroute.planner.fleets.spec import PlanSpec
    from simroute.planner.plan import PlanResult

EXIT_INFEASIBLE = 3
BEST = "best"
"""What assertions are about."""
PlanArg = Annotated[Path, typer.Argument(metavar="PLAN", help="Plan file (YAML).")]
OutputOpt = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Write plan.json, page, tables and what is emitted there."),
]
AssertOpt = Annotated[
    list[str] | None,
    typer.Option("--assert", metavar="A", help="Fail unless this holds, as 'cost_usd_per_month < $9000' (repeatable)."),
]
EmitOpt = Annotated[
    list[str] | None,
    typer.Option("--emit", metavar="KIND", help="Also write the plan as vllm, compose, k8s or production-stack files."),
]
_SUITE = "simroute plan"
_EXAMPLES = "'cost_usd_per_month < $9000' or 'headroom >= 1.2'"


def plan(
    plan: PlanArg,
    trace: TraceOpt = None,
    set_: SetOpt = None,
    output: OutputOpt = None,
    emit: EmitOpt = None,
    seed: SeedOpt = None,
    json: Annotated[bool, typer.Option("--json", help="Print plan.json to stdout, and nothing else.")] = False,
    quiet: QuietOpt = False,
    exact: ExactOpt = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, say what is searched.")
    ] = False,
    jobs: JobsOpt = None,
    executor: ExecutorOpt = "processes",
    ray_address: RayAddressOpt = None,
    cache: CacheOpt = None,
    resume: ResumeOpt = True,
    assert_: AssertOpt = None,
    junit: JunitOpt = None,
) -> None:
    """Find the cheapest fleet and routing policy that keep every promise of a plan file, and prove it.

    An assertion is about the best plan: any number of its summary, or headroom, gpus and cost_usd_per_month. Exit code
    3 says that no fleet keeps every promise. Ctrl-C keeps what is done, and the next run goes on from there.
    """
    from simroute.cli.progress import shown_stages
    from simroute.planner.execution.executor import executor_named
    from simroute.planner.fleets.loading import read_plan
    from simroute.planner.plan import plan as search
    from simroute.results.store import prepare

    loaded = read_plan(plan, overrides=set_ or (), traces=trace or ())
    assertions = [parse(text, [BEST], _metrics(), what="plan", examples=_EXAMPLES) for text in assert_ or ()]
    kinds = _kinds(emit or (), output)
    warn(() if quiet else loaded.warnings)
    if dry_run:
        typer.echo(_described(loaded.spec))
        return
    if output:
        prepare(output)
    ready(junit)
    workers = executor_named(executor, jobs=jobs, ray_address=ray_address)
    kept = cache_at(cache, output, resume=resume, quiet=quiet)
    with shown_stages("plan", hidden=quiet) as progress:
        result = search(loaded.spec, seed=seed, exact=exact, executor=workers, cache=kept, progress=progress)
    _show(result, json=json, quiet=quiet)
    written = _store(result, output, kinds)
    if not quiet:
        _tell(result, kinds, () if json else written)
    if result.interrupted:
        _warn_of_stop(result, kept, asserted=bool(assertions))
        record(junit, _SUITE, [(each, ()) for each in assertions], skipped="the search was interrupted")
        raise typer.Exit(EXIT_INTERRUPTED)
    if not result.feasible:
        record(junit, _SUITE, [(each, ()) for each in assertions], skipped="no fleet keeps every promise")
        raise typer.Exit(EXIT_INFEASIBLE)
    enforce(assertions, {BEST: _asserted(result.document)}, suite=_SUITE, junit=junit)


def _warn_of_stop(result: PlanResult, kept: Cache, *, asserted: bool) -> None:
    """Say what an interrupted search leaves open, and how to go on."""
    why = next(note for note in result.document["notes"] if note.startswith("interrupted"))
    unchecked = ", assertions were not checked" * asserted
    warn([f"{why}{unchecked}; {kept.going_on('what is done is')}"])


def _metrics() -> dict[str, tuple[tuple[str, ...], str]]:
    """What can be asserted: the numbers of a summary, and of the plan."""
    from simroute.cli.assertions import METRICS

    return {**METRICS, "headroom": (("headroom",), "number"), "gpus": (("gpus",), "number")}


def _asserted(document: Any) -> dict[str, Any]:
    """The best plan's summary, with the plan's own numbers in place of those of its run."""
    best, room = document["best"], document["headroom"]
    own = {"cost_usd_per_month": best["cost_usd_per_month"], "gpus": best["gpus"]}
    return {**best["summary"], **own, "headroom": room and room["rate_scale"]}


def _kinds(kinds: Sequence[str], output: Path | None) -> tuple[str, ...]:
    """The kinds of files to emit, refused before hours are spent."""
    from simroute.errors import UsageError, unknown
    from simroute.planner.emit import KINDS

    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--emit {kind}: {unknown('kind', kind, KINDS)}")
    if kinds and output is None:
        raise UsageError(f"--emit {kinds[0]}: give -o DIR, where the files go")
    return tuple(kinds)


def _store(result: PlanResult, output: Path | None, kinds: Sequence[str]) -> list[str]:
    """plan.json, the same as a page, Markdown and CSV, and the best plan's files in a folder a kind: what is where."""
    if not output:
        return []
    from simroute.planner.emit import emit
    from simroute.planner.plan import PLAN
    from simroute.report.plan.page import render
    from simroute.report.plan.text import csv_text, markdown
    from simroute.results.store import json_text, prepare, write_text

    document = result.document
    texts = {PLAN: json_text(document), "plan.html": render(document)}
    texts |= {"plan.md": markdown(document), "plan.csv": csv_text(document)}
    for name, text in texts.items():
        write_text(output / name, text)
    told = ["", f"written: {output}/ ({', '.join(texts)})"]
    for kind in kinds if document["best"] else ():
        files = emit(kind, document["best"], document)
        for name, text in files.items():
            path = output / kind / name
            write_text(prepare(path.parent) / path.name, text)
        told.append(f"written: {output / kind}/ ({', '.join(files)})")
    if kinds and not document["best"]:
        told.append(f"not written: {', '.join(kinds)}: there is no plan to deploy")
    return told


def _tell(result: PlanResult, kinds: Sequence[str], written: Sequence[str]) -> None:
    """What is where, and what routes otherwise than the plan: its latencies are not those of such files."""
    from simroute.planner.emit import unlike

    for line in written:
        typer.echo(line)
    best = result.document["best"]
    for kind in kinds if best else ():
        if words := unlike(kind, best, result.document):
            warn([f"--emit {kind}: {words}"])


def _show(result: PlanResult, *, json: bool, quiet: bool) -> None:
    """The answer first: what cannot be written afterwards is not lost."""
    if json:
        from simroute.results.store import json_text

        typer.echo(json_text(result.document), nl=False)
    elif not quiet:
        from simroute.report.plan.table import print_plan

        print_plan(result.document, sys.stdout)


def _described(spec: PlanSpec) -> str:
    """What a search would look at: the variants, the fewest replicas of each by the bounds, those that cannot run."""
    from simroute.planner.fleets.bounds import Bounds
    from simroute.planner.fleets.candidates import space_of

    space = space_of(spec)
    bounds = Bounds(space)
    lines = [f"{spec.name}: {space.size():,} candidates: {len(space.options)} variants x replicas x policies"]
    for number, option in enumerate(space.options):
        refused = bounds.variants_refused((number,))
        least = f"ruled out alone: {refused}" if refused else f"at least {bounds.least(number)} alone"
        called = f" ({option.family})" if option.family else ""
        lines.append(f"variant     {option.name}{called}: ${option.usd_per_month:,.0f} a month each, {least}")
    lines += [f"cannot run  {each.name}: {each.reason}" for each in space.unfit]
    lines += [f"warning     {line}" for line in space.idle_classes]
    return "\n".join([*lines, f"policies    {', '.join(policy.shown for policy in spec.policies)}"])
