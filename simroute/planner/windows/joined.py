"""The windows of one policy's split replay: what each gave, which do not fit the one before, and all as one result.

Imports results and scenario, and of this room agreement and piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from simroute.planner.windows.agreement import requests_in, same_caches, same_fill
from simroute.planner.windows.piece import Piece, Span, Whole, expanded, part_of
from simroute.results.itl import ItlHistogram
from simroute.results.latency import PERCENTILES, Latencies, itl_statistics, latencies, statistics
from simroute.results.metrics import rounded, summarise
from simroute.results.run import FleetRun
from simroute.scenario.build import Built
from simroute.scenario.run import PolicyResult
from simroute.scenario.steptimes import step_times


class Item(NamedTuple):
    """One replay: of which window, under which policy; a `sample` is there to be compared with the window."""

    policy: int
    window: int
    span: Span
    sample: bool = False


@dataclass(slots=True)
class Joined:
    """One policy's windows: what they gave, which of them were replayed again, and the sample."""

    built: Built
    policy: int
    spans: Sequence[Span]
    whole: Whole
    lengthened: set[int] = field(default_factory=set)
    sampled: int | None = None
    sample: Piece | None = None

    @classmethod
    def begun(cls, built: Built, policy: int, spans: Sequence[Span]) -> Joined:
        """Nothing is known yet."""
        return cls(built, policy, spans, Whole(built, built.scenario.policies[policy].shown, spans))

    def first(self) -> list[Item]:
        """All windows, the sample, which takes longest, before them."""
        return [*self._sample(), *(Item(self.policy, number, span) for number, span in enumerate(self.spans))]

    def take(self, item: Item, piece: Piece) -> None:
        """An item gave this."""
        if item.sample:
            self.sample = piece
        else:
            self.whole.put(item.window, piece)

    def again(self) -> list[Item]:
        """The windows that do not begin as the window before them ends, to be replayed behind all of that one, once.

        A sample of which this was made is none any more.
        """
        items, moved = [], False
        for number in self.disagreeing():
            if number in self.lengthened:
                continue
            self.lengthened.add(number)
            if number == self.sampled and self.sample is not None:
                self.whole.put(number, self.sample)
                self.sampled = self.sample = None
                moved = True
            else:
                items.append(Item(self.policy, number, self._behind(number)))
        items += self._sample()
        return items or (self.again() if moved else [])

    def disagreeing(self) -> list[int]:
        """The windows that do not begin as the window before them ends."""
        return [number for number in range(1, len(self.spans)) if not self._agrees(number)]

    def _agrees(self, number: int) -> bool:
        before, this, span = self.whole.rest(number - 1), self.whole.rest(number), self.spans[number]
        there = before.company[: span.end - span.begin]
        here = self.whole.rows("cached_tokens", number, len(there))
        prompts = self.built.trace.input_tokens[span.begin : span.begin + len(there)]
        return same_fill(before.ends, this.begins) and same_caches(there, here, prompts)

    def _behind(self, number: int) -> Span:
        """A window behind all of the window before it."""
        return replace(self.spans[number], from_s=self.spans[number - 1].from_s)

    def _sample(self) -> list[Item]:
        """The busiest window that may still be compared with what it is behind the whole window before it."""
        left = [number for number in range(1, len(self.spans)) if number not in self.lengthened]
        if self.sampled is not None or not left:
            return []
        self.sampled = max(left, key=lambda k: self.spans[k].end - self.spans[k].begin)
        return [Item(self.policy, self.sampled, self._behind(self.sampled), sample=True)]

    def result(self) -> PolicyResult:
        """The pieces as one run, with what is known of its error."""
        run = self.whole.run()
        built = self.built
        summary = summarise(run, built.slo, built.quality, built.quality_floor, step_times(built.pools))
        disagreeing = self.disagreeing()
        split: dict[str, Any] = {
            "windows": len(self.spans),
            "warmup_s": max(span.start_s - span.from_s for span in self.spans),
            "lengthened": len(self.lengthened),
            "disagreeing": len(disagreeing),
        }
        if self.sampled is not None:
            split |= self._compared(run, self.sampled)
        notes = [_said(split), *([self._doubt(disagreeing)] if disagreeing else [])]
        return PolicyResult(run, {**summary, "split": rounded(split), "notes": [*summary["notes"], *notes]})

    def _compared(self, run: FleetRun, number: int) -> dict[str, Any]:
        """The sample beside its window."""
        assert self.sample is not None
        span = self.spans[number]
        ours = part_of(run, span)
        theirs = replace(ours, **expanded(self.sample.rows, span.end - span.begin))
        measured = [
            _statistics(latencies(rows), itl)
            for rows, itl in ((ours, self.whole.rest(number).itl), (theirs, self.sample.itl))
        ]
        return {"sample_requests": span.end - span.begin, "differences": differences(*measured)}

    def _doubt(self, disagreeing: Sequence[int]) -> str:
        """What to make of windows that still disagree."""
        number, of = disagreeing[0], len(self.spans)
        ended, begins = (
            requests_in(state) for state in (self.whole.rest(number - 1).ends, self.whole.rest(number).begins)
        )
        return (
            f"not what the unsplit run gives: {len(disagreeing)} of {of} windows begin otherwise than the window "
            f"before them ends (the one from {self.spans[number].start_s:,.0f} s with {begins:,} requests in the "
            f"fleet instead of {ended:,}): what happened longer than a window ago matters here; give fewer windows, "
            "or replay it in one piece"
        )


def _statistics(times: Latencies, itl: ItlHistogram) -> dict[str, dict[str, float]]:
    found = {name: statistics(getattr(times, name)) for name in ("ttft_s", "tpot_s", "e2e_s")}
    return found | {"itl_s": itl_statistics(itl)}


def differences(
    split: Mapping[str, Mapping[str, float]], unsplit: Mapping[str, Mapping[str, float]]
) -> dict[str, float | None]:
    """The relative difference of every percentile of every latency; None where there is none to compare."""
    found: dict[str, float | None] = {}
    for name, theirs in unsplit.items():
        for point in (f"p{percent}" for percent in PERCENTILES):
            known = theirs[point] > 0 and not np.isnan(split[name][point])
            found[f"{name}.{point}"] = split[name][point] / theirs[point] - 1.0 if known else None
    return found


def _said(split: Mapping[str, Any]) -> str:
    """How the run was made, and how far it is off."""
    text = f"split into {split['windows']} windows, each behind {split['warmup_s']:g} s of the traffic before it"
    if split["lengthened"]:
        text += f" ({split['lengthened']} of them, which that did not bring into their state, behind a whole window)"
    known = {name: change for name, change in split.get("differences", {}).items() if change is not None}
    if not known:
        return text
    worst = max(known, key=lambda name: abs(known[name]))
    return (
        f"{text}; on a sample of {split['sample_requests']:,} requests the largest difference of a percentile from the "
        f"unsplit run is {known[worst]:+.2%} ({worst})"
    )
