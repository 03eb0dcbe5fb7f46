"""`simroute run --split`: the part of the command that replays in windows. Imports the library in the functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from simroute.planner.execution.cache import Cache
    from simroute.planner.execution.executor import Executor
    from simroute.scenario.build import Built
    from simroute.scenario.run import RunResult

SplitOpt = Annotated[
    int | None, typer.Option("--split", metavar="N", min=2, help="Cut the replay into N windows that run side by side.")
]
WarmupOpt = Annotated[
    float | None,
    typer.Option("--warmup", metavar="S", min=0, help="Seconds of traffic that each window is warmed up with. [600]"),
]


@dataclass(frozen=True, slots=True)
class Split:
    """A replay in windows, as it was asked for."""

    windows: int
    warmup_s: float
    executor: Executor

    def run(
        self,
        built: Built,
        policies: Sequence[str] | None,
        cache: Cache,
        stop: Callable[[str], NoReturn],
        *,
        quiet: bool,
        **options: Any,
    ) -> RunResult:
        """Every policy's replay, with one progress bar; at Ctrl-C `stop` is told what is kept."""
        from simroute.cli.progress import shown_stages
        from simroute.planner.split import SplitInterrupted, split_run

        options |= {"windows": self.windows, "warmup_s": self.warmup_s, "executor": self.executor, "cache": cache}
        try:
            with shown_stages("windows", hidden=quiet) as tell:
                return split_run(built, policies, progress=tell and _staged(tell), **options)
        except SplitInterrupted as interrupted:
            stop(str(interrupted))


def _staged(tell: Callable[[float, str], None]) -> Callable[[float], None]:
    """Progress of windows, and that they are put together once all are done."""
    return lambda share: tell(share, "windows" if share < 1.0 else "summary")


def split_asked(
    windows: int | None,
    replicates: int | None,
    warmup_s: float | None,
    *,
    jobs: int | None,
    executor: str,
    ray_address: str | None,
    cache: Path | None,
) -> Split | None:
    """What these options ask for; None without --split. Raises UsageError where they contradict each other."""
    from simroute.errors import UsageError
    from simroute.planner.execution.executor import executor_named
    from simroute.planner.split import WARMUP_S

    if windows is None:
        given = {"--warmup": warmup_s is not None, f"--executor {executor}": executor != "processes"}
        given |= {"--ray-address": ray_address is not None, "--cache": cache is not None}
        for name, there in given.items():
            if there:
                raise UsageError(f"{name}: needs --split N")
        return None
    if replicates:
        raise UsageError("--replicates: a replay that is split has none: give --split or --replicates")
    workers = executor_named(executor, jobs=jobs, ray_address=ray_address)
    return Split(windows, WARMUP_S if warmup_s is None else warmup_s, workers)
