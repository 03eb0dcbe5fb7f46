"""Progress bars with the time left, on stderr and only on a terminal. Imports rich where one is drawn."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

REDRAWN_S = 0.1
"""Bars are drawn anew no more often than this."""


@dataclass(slots=True)
class Pace:
    """How long work will still take, of which the share done is told now and then.

    At the pace since it was first told: what was found finished then took no time.
    """

    _told: list[tuple[float, float]] = field(default_factory=list)  # (at, share): the first, and the last new one

    def left_s(self, share: float, now_s: float) -> float:
        """Seconds left at `now_s`, the share done being this; NaN while nobody knows."""
        if not self._told:
            self._told = [(now_s, share)] * 2
        if share != self._told[1][1]:
            self._told[1] = (now_s, share)
        (from_s, least), (at_s, most) = self._told
        if most <= least or at_s <= from_s:
            return math.nan
        return max((1.0 - most) * (at_s - from_s) / (most - least) - (now_s - at_s), 0.0)


def clock(seconds: float) -> str:
    """`1:02:03`; `-:--:--` where it is not known."""
    if math.isnan(seconds):
        return "-:--:--"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


Draw = Callable[[Sequence[float], Sequence[str]], None]


@contextmanager
def _bars(labels: Sequence[str], *, hidden: bool) -> Iterator[Draw | None]:
    """While inside, a bar for each label; gives the function to call with fractions done and labels.

    Bars are redrawn in that call, not by a thread: worker processes fork while the display is up.
    """
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    left = TextColumn("{task.fields[left]} left")
    with Progress(*columns, left, console=Console(stderr=True), transient=True, auto_refresh=False) as bars:
        tasks = [bars.add_task(label, total=1.0, left=clock(math.nan)) for label in labels]
        paces = [Pace() for _ in labels]
        drawn_s = -math.inf

        def draw(fractions: Sequence[float], texts: Sequence[str]) -> None:
            nonlocal drawn_s
            now_s = time.monotonic()
            lefts = [pace.left_s(fraction, now_s) for pace, fraction in zip(paces, fractions, strict=True)]
            if now_s < drawn_s + REDRAWN_S and min(fractions) < 1.0:
                return
            drawn_s = now_s
            for task, fraction, text, left_s in zip(tasks, fractions, texts, lefts, strict=True):
                bars.update(task, completed=fraction, description=text, left=clock(left_s))
            bars.refresh()

        bars.refresh()
        yield draw


@contextmanager
def shown_progress(
    labels: Sequence[str], *, hidden: bool = False
) -> Iterator[Callable[[Sequence[float]], None] | None]:
    """While inside, a bar for each label; gives the function to tell their fractions done (None: nothing drawn)."""
    with _bars(labels, hidden=hidden) as draw:
        yield draw and (lambda fractions: draw(fractions, labels))


@contextmanager
def shown_share(label: str, *, hidden: bool = False) -> Iterator[Callable[[float], None] | None]:
    """While inside, one bar; gives the function to call with the share done (None: nothing drawn)."""
    with shown_progress([label], hidden=hidden) as draw:
        yield draw and (lambda share: draw([share]))


@contextmanager
def shown_stages(label: str, *, hidden: bool = False) -> Iterator[Callable[[float, str], None] | None]:
    """While inside, one bar; gives the function to call with the share done and what is being done."""
    with _bars([label], hidden=hidden) as draw:
        yield draw and (lambda share, what: draw([share], [what]))
