"""`simroute calibrate list`: the calibrations of a folder. Imports hardware in the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simroute.hardware.calibration import Calibration

_PLAIN_WIDTH = 160
"""Columns of what is not a terminal."""


def list_calibrations(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Folder of calibrations (left out: those that come with simroute)."),
    ] = None,
    only: Annotated[
        str, typer.Option("--only", metavar="TEXT", help="Only files with this in their path, as h100/llama-3.1-8b.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, every field.")] = False,
) -> None:
    """List calibrations: model, scheme, GPU, TP, vLLM version, source, error and range."""
    from simroute.hardware.calibration_file import calibration_files, load_calibration, shipped

    root = folder or shipped()
    paths = [path for path in calibration_files(root) if only.lower() in path.relative_to(root).as_posix()]
    found = [(path, load_calibration(path)) for path in paths]
    if json:
        from json import dumps

        typer.echo(dumps([{"path": str(path)} | c.model_dump(mode="json") for path, c in found], indent=2))
        return
    if not found:
        every = len(list(calibration_files(root)))
        none = f"none of {every:,} calibrations has '{only}' in its path" if only and every else "no calibrations"
        typer.echo(f"{root}: {none}")
        return
    _print([_row(c) for _, c in sorted(found, key=_order)])


def _order(found: tuple[Path, Calibration]) -> tuple[str | int, ...]:
    calibration = found[1]
    names = (calibration.gpu, calibration.model, calibration.scheme, calibration.kv_cache_dtype)
    return (*names, calibration.tensor_parallel)


def _row(calibration: Calibration) -> tuple[str, ...]:
    """One line of the table; of each source as much as names it, the rest is in the file."""
    error, measured = calibration.error, calibration.range
    cache = "" if calibration.kv_cache_dtype == "auto" else f", KV {calibration.kv_cache_dtype}"
    sources = dict.fromkeys(p.source.split(", ")[0] for p in calibration.provenance)
    return (
        f"{calibration.gpu} {calibration.model} {calibration.scheme}{cache}",
        str(calibration.tensor_parallel),
        calibration.vllm,
        calibration.basis,
        f"{error.median:.1%}",
        f"{error.p90:.1%}",
        f"{error.bias_sd:.1%}",
        f"{measured.tokens[1]:,}",
        f"{measured.decode_seqs[1]:,}",
        "; ".join(sources) or "-",
    )


_COLUMNS = ("calibration", "TP", "vLLM", "basis", "median", "90 %", "runs", "tokens", "requests", "source")
"""Of `_row`: errors of a step (median, 90th percentile) and of a whole run, then the largest batch measured."""


def _print(rows: list[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    options: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
    table = Table(title="Calibrations: error of a step and of runs, largest batch measured", **options)
    for heading in _COLUMNS:
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("vLLM", "source"))
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    console.print(table)
