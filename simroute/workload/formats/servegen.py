"""ServeGen data: what each client of a service asks for, window by window, to draw requests from.

ServeGen (https://github.com/alibaba/ServeGen, Apache-2.0; Xiang et al., NSDI '26) publishes no requests but, for every
client N of a production service, two files; a set of them lies in a folder or in a tar archive:

- `chunk-N-trace.csv`, a line a window without a header: `start_s, rate, cv, pattern, arg1, arg2`. `rate` is requests a
  second, counted over the window. `pattern` says whether a Gamma or a Weibull distribution fits the gaps between
  arrivals best, `arg1` is the shape of that fit and `arg2` its scale; `cv` is that of the recorded gaps.
- `chunk-N-dataset.json`, histograms of `input_tokens` and `output_tokens` (and `reason_ratio`, the share of an answer
  that is reasoning: not used), by the start of a longer window.

A window gets as many requests as it counted. The gaps between them have the fitted shape and are stretched to fill the
window, as in ServeGen's own generator: the fitted scale often contradicts the rate. Lengths are drawn from the latest
histograms that are not empty, of prompt and answer independently (ServeGen takes one uniform number for both, which
makes the longest prompt get the longest answer; the published marginals say nothing of that).
May import the formats' base and servegen_files, rng, errors and the workload's trace and columns.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from simroute.errors import TraceError
from simroute.rng import stream
from simroute.workload.columns import Coded, Floats, Ints
from simroute.workload.formats.base import BadRows
from simroute.workload.formats.servegen_files import (
    Histogram,
    TokenLengths,
    Windows,
    client_files,
    is_set,
    read_windows,
)
from simroute.workload.trace import Trace, check_window

MOST_REQUESTS = 10_000_000
"""More than this at once is refused: as a trace they would take gigabytes."""


class ServeGenReader:
    """A client is a tenant, `client-N`; arrivals keep the file's clock; there are no classes, sessions or prefixes.

    Every client's window has random numbers of its own, so a part of the file is drawn as in the whole.
    """

    name = "servegen"

    def sniff(self, path: Path) -> bool:
        """Whether it is a tar archive or a folder with a client's file among the first."""
        return is_set(path)

    def read(self, path: Path) -> Trace:
        """The whole file under seed 0; see `TraceReader`."""
        return self.draw(path, 0, None)

    def draw(self, path: Path, seed: int, window_s: tuple[float, float] | None) -> Trace:
        """The requests of [from, to) seconds, the clock started there; see `DrawingReader`.

        Raises UsageError for an impossible window, TraceError for data of which nothing is usable, for a time in
        which nothing arrives and for more than `MOST_REQUESTS`.
        """
        start_s, stop_s = window_s or (0.0, math.inf)
        check_window(start_s, stop_s)
        bad = BadRows(path)
        tables, datasets = client_files(path)
        windows = read_windows(tables, bad)
        lengths = TokenLengths(path, datasets, windows.rate_of_client())
        trace = _trace(path, _wanted(path, windows, bad, start_s, stop_s), lengths, seed, bad)
        return trace if window_s is None else trace.window(start_s, stop_s)


def arrivals(rng: np.random.Generator, count: int, shape: float, weibull: bool) -> Floats:
    """`count` sorted numbers in [0, 1]: the gaps before, between and after them in proportion to draws of the shape.

    With shape 1 these are the order statistics of uniform numbers: a Poisson process that is known to have `count`.
    """
    gaps = rng.weibull(shape, count + 1) if weibull else rng.standard_gamma(shape, count + 1)
    total = float(gaps.sum())
    if not total:  # every draw underflowed: a tiny shape and very few of them
        return np.arange(1, count + 1) / (count + 1)
    times: Floats = np.cumsum(gaps)[:-1] / total
    return times


def _wanted(path: Path, windows: Windows, bad: BadRows, start_s: float, stop_s: float) -> Windows:
    """The windows that reach into the time asked for and have requests."""
    if not len(windows.client):
        raise bad.nothing_left()
    reach = (windows.start_s < stop_s) & (windows.start_s + windows.width_s > start_s) & (windows.rate_per_s > 0)
    chosen = windows.take(reach)
    expected = float(chosen.rate_per_s.sum()) * chosen.width_s
    if not expected:
        raise TraceError(
            f"{path}: nothing arrives in {start_s:g}..{stop_s:g} s "
            f"(windows span {windows.start_s.min():g}..{windows.start_s.max() + windows.width_s:g} s)"
        )
    if expected > MOST_REQUESTS:
        raise TraceError(
            f"{path}: {expected:,.0f} requests are too many at once, at most {MOST_REQUESTS:,}: take a part of the "
            "time (window_s in a scenario, --window of `simroute trace scale`)"
        )
    return chosen


def _trace(path: Path, windows: Windows, lengths: TokenLengths, seed: int, bad: BadRows) -> Trace:
    """All requests of the windows, sorted by arrival."""
    parts = []
    for client, start_s, rate_per_s, shape, weibull in windows.rows():
        rng = stream(seed, "servegen", client, int(start_s))
        # Counted requests are whole; of a rate that gives a fraction, chance decides.
        count = int(round(rate_per_s * windows.width_s, 6) + rng.random())
        end_s = start_s + windows.width_s
        times = start_s + windows.width_s * arrivals(rng, count, shape, weibull)
        prompt, answer = lengths.of(client, start_s)
        # Many a last gap is as good as none: the window is open at its end.
        times = np.minimum(times, np.nextafter(end_s, 0.0))
        parts.append((times, _drawn(prompt, rng, count), _drawn(answer, rng, count)))
    counts = [len(part[0]) for part in parts]
    arrival_s, inputs, outputs = (np.concatenate([part[k] for part in parts]) for k in range(3))
    clients, code = np.unique(windows.client, return_inverse=True)
    order = np.argsort(arrival_s, kind="stable")
    return Trace.build(
        arrival_s=arrival_s[order],
        input_tokens=inputs[order],
        output_tokens=outputs[order],
        tenant=Coded(np.repeat(code.reshape(-1), counts)[order], tuple(f"client-{client}" for client in clients)),
        name=path.name.split(".")[0],
        notes=(
            f"{path}: drawn, not recorded: {len(arrival_s):,} requests of {len(clients):,} clients under seed {seed}",
            *bad.notes(),
            *lengths.notes(),
        ),
    )


def _drawn(histogram: Histogram, rng: np.random.Generator, count: int) -> Ints:
    place = np.searchsorted(histogram.bounds, rng.random(count) * histogram.bounds[-1], side="right")
    drawn: Ints = histogram.tokens[np.minimum(place, len(histogram.tokens) - 1)]
    return drawn
