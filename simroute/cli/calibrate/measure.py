"""`simroute calibrate measure`: a real vLLM's steps and requests, into a run directory. Imports calibration in the
command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simroute.errors import UsageError

if TYPE_CHECKING:
    from simroute.calibration.measure.server import Launch
    from simroute.calibration.measure.session import Target
    from simroute.calibration.runs import Run


def measure(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="The run directory; it may be begun.")],
    vllm_args: Annotated[
        list[str] | None, typer.Argument(metavar="-- VLLM_ARGS", help="With --launch, after --: any arguments of vLLM.")
    ] = None,
    launch: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start vLLM with this model, or with a local config.json.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Measure the server that runs there, as http://HOST:PORT.")] = None,
    trace_steps: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --url: the SIMROUTE_TRACE_STEPS of that server.")
    ] = None,
    dummy_weights: Annotated[bool, typer.Option("--dummy-weights", help="Random weights: nothing to load.")] = False,
    model_config: Annotated[
        Path | None, typer.Option(metavar="JSON", help="With --dummy-weights: start vLLM with this config.json.")
    ] = None,
    quantization: Annotated[str | None, typer.Option(help="Handed on to vLLM.")] = None,
    python: Annotated[str, typer.Option(help="The Python that has vLLM (and simroute).")] = sys.executable,
    model: Annotated[str | None, typer.Option(help="What the run calls the model (left out: as launched).")] = None,
    gpu: Annotated[str | None, typer.Option(help="What the run calls the GPU (left out: as the driver).")] = None,
    scheme: Annotated[str | None, typer.Option(help="What the run calls the scheme (left out: as loaded).")] = None,
    loads: Annotated[str, typer.Option(help="Open-loop loads, as fractions of the capacity.")] = "0.3,0.6,0.9",
    budget: Annotated[float, typer.Option(min=5, metavar="S", help="Seconds for all of it, start-up apart.")] = 420.0,
    duration: Annotated[
        float | None, typer.Option(min=1, metavar="S", help="Seconds of each load (left out: of the budget).")
    ] = None,
    input_tokens: Annotated[float, typer.Option(min=4, help="Median length of a load's prompts.")] = 110.0,
    output_tokens: Annotated[float, typer.Option(min=2, help="Median length of a load's answers.")] = 130.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts, lengths and arrivals.")] = 0,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="With --url alone: the server's limit.")] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --url alone: the server's limit.")
    ] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="With --url alone: the GPUs that it is split over.")] = None,
) -> None:
    """Measure a vLLM server: a designed sweep, its capacity, and open-loop load at fractions of it.

    What is in the run directory already is not measured again: after a failure, the same command goes on.
    """
    from simroute.calibration.measure.describe import Names
    from simroute.calibration.measure.load import Lengths
    from simroute.calibration.measure.session import Plan, Target
    from simroute.calibration.measure.session import measure as measured

    plan = Plan(_fractions(loads), budget, duration, Lengths(input_tokens, output_tokens), seed)
    extra = [*(["--quantization", quantization] if quantization else []), *(vllm_args or [])]
    target = Target(
        _launch(launch, url, dummy_weights, model_config, extra, python),
        url, trace_steps, max_num_seqs, max_num_batched_tokens, tp,
    )  # fmt: skip
    _check(target, url)
    with _shown(["start", *plan.phases()]) as progress:
        run = measured(target, plan, output, Names(model, gpu, scheme), progress)
    _tell(run, output)


def _launch(
    model: str | None, url: str | None, dummy: bool, config: Path | None, args: list[str], python: str
) -> Launch | None:
    from simroute.calibration.measure.server import Launch

    if model is None and url is None and config is not None:
        model = config.parent.resolve().name if config.stem == "config" else config.stem
    if (model is None) == (url is None):
        raise UsageError("calibrate measure: give either --launch MODEL or --url URL")
    if model is None:
        if args or dummy or config:
            raise UsageError("--dummy-weights, --model-config, --quantization and vLLM's arguments need --launch")
        return None
    if config is None and model.endswith(".json"):
        config, model = Path(model), Path(model).stem
    if config is not None and not dummy:
        raise UsageError("--model-config has no weights: add --dummy-weights")
    if config is not None and not config.is_file():
        raise UsageError(f"--model-config: no such file: {config}")
    return Launch(model, config, dummy, tuple(args), python)


def _check(target: Target, url: str | None) -> None:
    if target.launch and any(
        (target.trace_steps, target.max_num_seqs, target.max_num_batched_tokens, target.tensor_parallel)
    ):
        raise UsageError("--trace-steps, --max-num-seqs, --max-num-batched-tokens and --tp go with --url: a launched "
                         "server tells its steps and limits, and takes vLLM's arguments after --")  # fmt: skip
    if url and not target.trace_steps:
        typer.echo("warning: no --trace-steps: requests will be measured, but no engine steps", err=True)


def _fractions(text: str) -> tuple[float, ...]:
    try:
        fractions = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--loads: must be numbers separated by commas, got '{text}'") from None
    if not all(0 < fraction < 2 for fraction in fractions) or len(set(fractions)) < len(fractions):
        raise UsageError(f"--loads: must be different fractions above 0 and below 2, got '{text}'")
    return fractions


@contextmanager
def _shown(phases: list[str]) -> Iterator[Callable[[str, float], None]]:
    """While inside, a bar a phase on a terminal; elsewhere a line on stderr when one ends."""
    from simroute.cli.progress import shown_progress

    fractions = dict.fromkeys(phases, 0.0)
    with shown_progress(phases) as draw:

        def progress(phase: str, done: float) -> None:
            if draw is None and done >= 1 > fractions[phase]:
                typer.echo(f"{phase}: done", err=True)
            fractions[phase] = min(done, 1.0)
            if draw is not None:
                draw(list(fractions.values()))

        yield progress


def _tell(run: Run, output: Path) -> None:
    from simroute.calibration.runs import CUT

    meta = run.meta
    typer.echo(
        f"{meta.model} {meta.scheme} on {meta.gpu}, vLLM {meta.vllm}: {len(run.iterations):,} steps, "
        f"{len(run.requests):,} requests, capacity {meta.capacity_rps or 0:.3g} requests/s"
    )
    for phase in meta.phases:
        if phase.kind == "load":
            left = run.phase(phase.name).requests.query("not ok")
            cut = int(left["error"].str.startswith(CUT).sum())
            failed = len(left) - cut
            if not phase.ok:
                typer.echo(f"warning: {phase.name}: {failed} requests failed; measured again next time", err=True)
            elif cut:
                typer.echo(f"warning: {phase.name}: its end cut off {cut} requests: the engine fell behind", err=True)
    typer.echo(f"written: {output}/ (meta.json, iterations.parquet, requests.parquet)")
