"""A trace's statistics drawn for a terminal. Owns the drawing only; imports `workload.inspect` and rich."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from simroute.units import SECONDS_PER_HOUR
from simroute.workload.inspect import Group as RequestGroup
from simroute.workload.inspect import Lengths, Rate, TraceStats

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_CHART_ROWS = 6
_BAR_COLUMNS = 32


def show(stats: TraceStats, console: Console) -> None:
    """Draw everything in `stats`."""
    console.print(Group(*_parts(stats)))
    for note in stats.notes:
        # One line each however narrow the terminal, so that a path in it can be copied.
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)


def columns_chart(values: Sequence[float], rows: int = _CHART_ROWS) -> list[str]:
    """A column of block characters a value, as `rows` lines from the top; the largest value fills its column."""
    top = max(values, default=0.0)
    heights = [round(value / top * rows * 8) if top else 0 for value in values]
    return [
        "".join(_EIGHTHS[min(max(height - 8 * row, 0), 8)] for height in heights) for row in range(rows - 1, -1, -1)
    ]


def bar(share: float, columns: int = _BAR_COLUMNS) -> str:
    """A horizontal bar of `share` (0..1) of `columns` characters; something above 0 always shows."""
    filled = round(share * columns)
    return "█" * filled if filled or share <= 0 else "▏"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: `45 s`, `12.5 min`, `23.9 h`, `13.0 days`."""
    for limit, unit_s, unit in ((120, 1, "s"), (2 * SECONDS_PER_HOUR, 60, "min"), (48 * SECONDS_PER_HOUR, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.3g} {unit}"
    return f"{seconds / (24 * SECONDS_PER_HOUR):.3g} days"


def _parts(stats: TraceStats) -> Iterator[RenderableType]:
    yield Text(f"{stats.name}: {stats.requests:,} requests in {duration(stats.duration_s)}", style="bold")
    yield Text(f"fingerprint {stats.fingerprint[:16]}, longest prompt and answer {stats.context_max:,} tokens")
    yield from _rate(stats.rate)
    yield from _lengths("Input tokens", stats.input)
    yield from _lengths("Output tokens", stats.output)
    yield Text(f"\nPrefix reuse: {_reuse(stats)}")
    if stats.sessions:
        yield Text(f"Sessions: {stats.sessions:,}, {stats.turns_mean:.2f} turns each on average")
    for title, groups in (("class", stats.classes), ("tier", stats.tiers), ("tenant", stats.tenants)):
        yield Text()
        yield _group_table(title, groups, with_reuse=stats.reuse is not None)


def _rate(rate: Rate) -> Iterator[RenderableType]:
    yield Text(
        f"\nArrivals a second: mean {rate.mean_per_s:.3g}, peak {rate.peak_per_s:.3g} over {duration(rate.bin_s)}, "
        f"cv of gaps {rate.cv:.2f}"
    )
    for row, line in enumerate(columns_chart(rate.counts)):
        yield Text(f"{rate.peak_per_s:>8.3g} ┤{line}" if row == 0 else f"{'':8} │{line}", no_wrap=True)
    end_s = rate.start_s + rate.bin_s * len(rate.counts)
    axis = f"{duration(rate.start_s)}{duration(end_s).rjust(len(rate.counts) - len(duration(rate.start_s)))}"
    yield Text(f"{'':9}└{'─' * len(rate.counts)}\n{'':10}{axis}", no_wrap=True)


def _lengths(title: str, lengths: Lengths) -> Iterator[RenderableType]:
    yield Text(
        f"\n{title}: mean {lengths.mean:,.0f}, p50 {lengths.p50:,.0f}, p90 {lengths.p90:,.0f}, "
        f"p99 {lengths.p99:,.0f}, max {lengths.max:,}"
    )
    total, most = sum(lengths.counts), max(lengths.counts)
    for k, count in enumerate(lengths.counts):
        share = f"{count / total:6.1%}"
        yield Text(f"{lengths.edges[k]:>8,} ┤{bar(count / most):<{_BAR_COLUMNS}} {share}", no_wrap=True)


def _reuse(stats: TraceStats) -> str:
    if stats.reuse is None:
        return "unknown (the trace has no prefix ids)"
    return (
        f"{stats.reuse.share:.1%} of prompt tokens were seen before "
        f"({stats.reuse.seen_tokens:,} of {stats.reuse.prompt_tokens:,}; ids of {stats.reuse.block_tokens} tokens)"
    )


def _group_table(title: str, groups: Sequence[RequestGroup], *, with_reuse: bool) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(title, min_width=16)
    for heading in ("requests", "share", "input mean", "output mean", *(["reuse"] if with_reuse else [])):
        table.add_column(heading, justify="right")
    for group in groups:
        cells = [group.name, f"{group.requests:,}", f"{group.share:.1%}"]
        cells += [f"{group.input_mean:,.0f}", f"{group.output_mean:,.0f}"]
        table.add_row(*cells, *([f"{group.reuse:.1%}"] if with_reuse else []))
    return table
