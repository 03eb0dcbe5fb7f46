"""Policies compared over many worlds: what is kept of each, who ranks where, and the answer in one sentence.

Owns compare.json. Works on the dicts of `metrics.summarise`. Imports numpy and, of results, compare, intervals,
metrics, paired and stability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simroute.results.compare import TARGET_ATTAINMENT, Standing, Summary, floor_kept, standing
from simroute.results.intervals import value_at
from simroute.results.metrics import rounded
from simroute.results.paired import HEADLINES, Number, Verdict, paired
from simroute.results.stability import Stability

FEW_WORLDS = 8
"""With fewer worlds intervals are wide, and a sign test tells little from noise."""


class Outcome(NamedTuple):
    """What is kept of one policy in one world: its headline numbers (None where undefined) and its standing."""

    numbers: tuple[Number, ...]
    standing: Standing
    within_targets: float
    stability: str


Outcomes = Mapping[str, Sequence[Outcome]]
"""By policy, in the order asked for; outcome k of each is of the same world."""


def kept(summary: Summary) -> Outcome:
    """What the summary of a policy in a world adds to the comparison.

    `within_targets` is the lesser of two shares (requests within their SLO, answers that reach their floor), counted
    up to the target alone: more does not rank higher.
    """
    near = min(summary["slo_attainment"] or 0.0, floor_kept(summary), TARGET_ATTAINMENT)
    numbers = tuple(value_at(summary, headline.name) for headline in HEADLINES)
    return Outcome(numbers, standing(summary), near, summary["stability"])


def differences(outcomes: Outcomes, baseline: str, level: float) -> dict[str, Any]:
    """Every policy but the baseline against it: `paired` of each headline number, by policy and name."""
    columns = {label: list(zip(*(o.numbers for o in found), strict=True)) for label, found in outcomes.items()}
    nothing: list[tuple[Number, ...]] = [()] * len(HEADLINES)
    theirs = columns[baseline] or nothing
    return {
        label: {
            headline.name: paired(ours, base, less_is_better=headline.less_is_better, level=level)
            for headline, ours, base in zip(HEADLINES, column or nothing, theirs, strict=True)
        }
        for label, column in columns.items()
        if label != baseline
    }


def ranking(outcomes: Outcomes) -> dict[str, Any]:
    """Every policy's place over the worlds, best first.

    In a world a policy's place is 1 plus the number of policies that stand better there (`compare.standing`); equals
    share a place. `mean_place` orders them, `first_in` counts the worlds in which nobody stood better.
    """
    labels = list(outcomes)
    places = {label: _places(label, outcomes) for label in labels}
    ordered = sorted(labels, key=lambda label: (_mean(places[label]), labels.index(label)))
    return {
        label: {
            "mean_place": _mean(places[label]) if places[label] else None,
            "first_in": places[label].count(1),
            "meets_targets": sum(not outcome.standing[0] for outcome in outcomes[label]),
            "stability": {str(s): sum(o.stability == s for o in outcomes[label]) for s in Stability},
        }
        for label in ordered
    }


def answer(outcomes: Outcomes, level: float) -> str:
    """One sentence: who wins over the next best, whether that is noise, in how many worlds, and by how much."""
    worlds = len(next(iter(outcomes.values()), ()))
    ordered = list(ranking(outcomes))
    if len(ordered) < 2 or not worlds:
        return "Nothing was compared: no world was replayed under every policy."
    best, other = ordered[:2]
    pairs = list(zip(outcomes[best], outcomes[other], strict=True))
    gains = sum(a.standing < b.standing for a, b in pairs)
    losses = sum(a.standing > b.standing for a, b in pairs)
    if not gains and not losses:
        return f"{best} and {other} are the best and alike: neither ranks above the other in any of {worlds} worlds."
    verdict, amount = _decisive(outcomes[best], outcomes[other], level)
    if gains > losses and verdict == "better":
        return (
            f"{best} wins over {other}, the next best, and that is not noise: it ranks above it in {gains} of {worlds} "
            f"worlds; {amount}."
        )
    return (
        f"Noise decides between {best} and {other}, the two best: the first ranks above the second in {gains} of "
        f"{worlds} worlds and below it in {losses}; {amount}."
    )


def document(
    *,
    scenario: str,
    seed: int,
    baseline: str,
    block_s: float,
    level: float,
    summaries: Mapping[str, Summary],
    outcomes: Outcomes,
    decisions: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    """All of compare.json. `summaries` are those of the trace itself, `outcomes` those of the resampled worlds."""
    worlds = len(next(iter(outcomes.values()), ()))
    found = {
        "scenario": scenario,
        "seed": seed,
        "answer": answer(outcomes, level),
        "baseline": baseline,
        "worlds": worlds,
        "block_s": block_s,
        "level": level,
        "target_attainment": TARGET_ATTAINMENT,
        "ranking": ranking(outcomes),
        "differences": differences(outcomes, baseline, level),
        "decisions": dict(decisions),
        "policies": {label: dict(summary) for label, summary in summaries.items()},
        "values": {label: _values(label, outcomes) for label in outcomes},
        "notes": [*notes, *_notes(outcomes, worlds)],
        "manifest": dict(manifest),
    }
    return rounded(found)  # type: ignore[no-any-return]


def _values(label: str, outcomes: Outcomes) -> dict[str, list[Number]]:
    """Every headline number of a policy in every world, so that anybody can do other statistics with them."""
    return {h.name: [outcome.numbers[i] for outcome in outcomes[label]] for i, h in enumerate(HEADLINES)}


def _places(label: str, outcomes: Outcomes) -> list[int]:
    rows = zip(*outcomes.values(), strict=True)
    own = list(outcomes).index(label)
    return [1 + sum(outcome.standing < row[own].standing for outcome in row) for row in rows]


def _mean(places: Sequence[int]) -> float:
    return float(np.mean(places)) if places else math.inf


def _decisive(best: Sequence[Outcome], other: Sequence[Outcome], level: float) -> tuple[Verdict, str]:
    """The verdict that decides between two policies, and by how much they differ there.

    It is that of the first of the numbers that policies are ranked by in which they differ by more than noise, else
    of the first in which they differ at all.
    """
    p99 = next(i for i, headline in enumerate(HEADLINES) if headline.name == "ttft_s.p99")
    criteria: tuple[tuple[str, str, float, Callable[[Outcome], Number], bool], ...] = (
        ("nearness to its targets", "{:+.1f} points", 100.0, lambda o: o.within_targets, False),
        ("cost", "{:+,.0f} USD a month", 1.0, lambda o: o.standing[2], True),
        ("p99 TTFT", "{:+.3g} s", 1.0, lambda o: o.numbers[p99], True),
    )
    told: list[tuple[Verdict, str]] = []
    for name, form, scale, value, less in criteria:
        found = paired([value(o) for o in best], [value(o) for o in other], less_is_better=less, level=level)
        if found["better_in"] or found["worse_in"]:
            told.append((found["verdict"], _change(name, form, scale, found, level)))
    clear = [each for each in told if each[0] != "noise"]
    return next(iter(clear or told), ("noise", "nearness to targets, cost and p99 TTFT are all equal"))


def _change(name: str, form: str, scale: float, found: Mapping[str, Any], level: float) -> str:
    """One difference in words, with its interval."""
    if found["mean"] is None:
        return f"{name}: there is no world in which both have one"
    text = f"{name} {form.format(scale * found['mean'])}"
    if found["low"] is not None:
        text += f", {100 * level:g}% interval [{scale * found['low']:+.3g}, {scale * found['high']:+.3g}]"
    without = max(found["without_value"].values())
    return f"{text}, over the {found['worlds']} worlds in which both have one" if without else text


def _notes(outcomes: Outcomes, worlds: int) -> list[str]:
    """What a reader of the verdicts must know, a sentence each."""
    notes = []
    for label, found in outcomes.items():
        overloaded = sum(outcome.stability == Stability.OVERLOADED for outcome in found)
        if overloaded:
            notes.append(
                f"{label} is OVERLOADED in {overloaded} of {worlds} worlds: it has no p99 there, which counts as "
                "worse than any other; means and intervals of tails are over the remaining worlds"
            )
    if worlds < FEW_WORLDS:
        notes.append(f"verdicts rest on {worlds} worlds: {FEW_WORLDS} or more tell noise apart better")
    return notes
