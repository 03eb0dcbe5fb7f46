"""A progress bar a policy, on stderr and only on a terminal. Imports rich where one is drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def shown_progress(
    labels: Sequence[str], *, hidden: bool = False
) -> Iterator[Callable[[Sequence[float]], None] | None]:
    """While inside, a bar for each label; gives the function to call with their fractions done (None: nothing drawn).

    Bars are redrawn in that call, not by a thread: worker processes fork while the display is up.
    """
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    done = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    columns = (*done, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bars:
        tasks = [bars.add_task(label, total=1.0) for label in labels]

        def advance(fractions: Sequence[float]) -> None:
            for task, fraction in zip(tasks, fractions, strict=True):
                bars.update(task, completed=fraction)
            bars.refresh()

        yield advance
