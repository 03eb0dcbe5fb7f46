"""`simroute calibrate fit`: measured runs to a calibration file. Imports calibration and hardware in the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simroute.calibration.fit import Fit
    from simroute.hardware.calibration import Calibration


def fit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories of one engine.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Calibration to write (YAML), over an older one.")
    ],
    load: Annotated[
        list[float] | None,
        typer.Option(
            "--load",
            metavar="F",
            help="Of the load phases use only that at this fraction of capacity, to predict the others (repeatable).",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
) -> None:
    """Fit step times and request overheads to measured runs; the file says where they hold and how wrong they are.

    Place it as <folder>/<gpu>/<model>/<scheme>[-tpN].yaml and name the folder as a scenario's `calibrations`.
    """
    from simroute.calibration.fit import fit as fit_runs
    from simroute.calibration.fit import with_loads
    from simroute.calibration.runs import ITERATIONS, read_run
    from simroute.hardware.calibration_file import file_sha256, save_calibration

    measured = [read_run(run) for run in runs]
    if load:
        measured = [with_loads(run, load) for run in measured]
    found = fit_runs(measured, [file_sha256(run / ITERATIONS) for run in runs])
    save_calibration(found.calibration, output)
    if not quiet:
        _print(found)
        typer.echo(f"written: {output}")


def _print(found: Fit) -> None:
    calibration = found.calibration
    typer.echo(
        f"{calibration.model} {calibration.scheme} on {calibration.tensor_parallel} x {calibration.gpu}, "
        f"vLLM {calibration.vllm}: {len(found.steps.steps):,} steps"
    )
    _table("Terms of a step", ("term", "value", "unit", "± standard error"), _terms(calibration))
    _table("Error of a step that the fit did not see", ("steps", "number", "median", "90 %", "mean"), _errors(found))
    typer.echo(_distribution(calibration))
    typer.echo(f"whole runs differ by {calibration.error.bias_sd:.1%} (standard deviation)")
    if found.overhead:
        request = calibration.request
        typer.echo(
            f"outside the engine: {request.overhead_ms:.3g}{_error(request.overhead_error_ms)} ms a request and "
            f"{request.per_input_token_us:.3g}{_error(request.per_input_token_error_us)} us a token of its prompt ("
            f"{found.overhead.inbound:,} requests in, {found.overhead.outbound:,} out)"
        )
    spans = (f"{name} {low:,} to {high:,}" for name, (low, high) in calibration.range.model_dump().items())
    typer.echo(f"measured: {', '.join(spans)}")
    for note in calibration.notes:
        typer.echo(f"note: {note}")


def _terms(calibration: Calibration) -> list[tuple[str, ...]]:
    """Each term with its unit and standard error; a GEMM knot's tokens are part of its name."""
    covariance = calibration.covariance
    error = {}
    if covariance:
        error = {name: covariance.relative[i][i] ** 0.5 for i, name in enumerate(covariance.parameters)}
    rows: list[tuple[str, ...]] = []
    for name, value in calibration.step.values().items():
        stem, bracket, knot = name.partition("[")
        term, _, unit = stem.rpartition("_")
        shown = f"{error[name]:.1%}" if name in error else "-"
        rows.append((f"{term} at {knot[:-1]} tokens" if bracket else term, f"{value:.4g}", unit, shown))
    if calibration.step.graph_sizes:
        sizes = calibration.step.graph_sizes
        rows.append(("decoding batches padded", f"{len(sizes)} sizes up to {sizes[-1]}", "tokens", "-"))
    return rows


def _errors(found: Fit) -> list[tuple[str, ...]]:
    """Errors by what a step does: only prefill, only decode, both."""
    import numpy as np

    kept, errors = ~found.steps.stalls, found.steps.errors
    decodes = (found.steps.steps["decode_seqs"] > 0)[kept]
    prefills = (found.steps.steps["prefill_seqs"] > 0)[kept]
    kinds = {"decode": decodes & ~prefills, "prefill": prefills & ~decodes, "both": decodes & prefills}
    rows: list[tuple[str, ...]] = []
    for name, members in {**kinds, "all": decodes | prefills}.items():
        if members.any():
            size = np.abs(errors[members])
            shown = (float(np.median(size)), float(np.quantile(size, 0.9)))
            mean = float(errors[members].mean())
            rows.append((name, f"{members.sum():,}", *(f"{value:.1%}" for value in shown), f"{mean:+.1%}"))
    return rows


def _distribution(calibration: Calibration) -> str:
    """Percentiles of the signed errors, on one line."""
    shown = (f"p{share} {value:+.1%}" for share, value in (calibration.error.percentiles or {}).items())
    return f"predicted over measured: {', '.join(shown)}"


def _error(error: float | None) -> str:
    """A standard error behind its value, where it is known."""
    return "" if error is None else f" ± {error:.2g}"


def _table(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
