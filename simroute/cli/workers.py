"""Options that say where replays run and where they are kept. Imports the library in the functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simroute.cli.scenario import warn

if TYPE_CHECKING:
    from simroute.planner.execution.cache import Cache

JobsOpt = Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Processes. [one a CPU]")]
ExecutorOpt = Annotated[str, typer.Option("--executor", metavar="E", help="processes, or ray.")]
RayAddressOpt = Annotated[
    str | None, typer.Option("--ray-address", metavar="HOST:PORT", help="Ray cluster. [this machine's]")
]
CacheOpt = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Keep and reuse replays there. [.simroute-cache in -o DIR, or here]"),
]
ResumeOpt = Annotated[bool, typer.Option("--resume/--no-resume", help="Reuse the replays that are kept.")]


def cache_at(folder: Path | None, output: Path | None, *, resume: bool, quiet: bool) -> Cache:
    """Where replays are kept: `folder`, else in the folder of the results, else here; nowhere unless to `resume`."""
    from simroute.planner.execution.cache import FOLDER, Cache

    return Cache(
        (folder or (output or Path()) / FOLDER) if resume else None, lambda line: warn(() if quiet else [line])
    )
