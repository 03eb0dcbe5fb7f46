"""The changes that `simroute whatif` is asked for on the command line. Imports the library inside its functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simroute.planner.study.changes import Change

Texts = list[str] | None


def changes_of(
    set_: Texts,
    input_: str | None,
    answers: str | None,
    price: str | None,
    mix: Texts,
    lose: Texts,
    spot: str | None,
    change: Texts,
) -> list[Change]:
    """The changes that the options ask for, in the order of the report."""
    from simroute.planner.study.changes import Change, changes_at, changes_in
    from simroute.planner.study.spot import SpotShare

    found: list[Change] = []
    for name, text in (("input", input_), ("output", answers), ("price", price)):
        option = {"output": "--answers"}.get(name, f"--{name}")
        found += [Change(**{name: value}) for value in (numbers(option, text) if text else ())]  # type: ignore[arg-type]
    for text in mix or ():
        found.append(Change(mix=_weights(text)))
    for text in lose or ():
        found.append(Change(lose=(_loss(text),)))
    found += [Change(spot=SpotShare(share=share)) for share in (_shares("--spot", spot) if spot else ())]
    for text in set_ or ():
        path, values = _assignment(text)
        found += [Change(set={path: value}) for value in values]
    for text in change or ():
        found += changes_in(text, f"--change {text}") if text.lstrip()[:1] in "{[" else changes_at(Path(text))
    return found


def numbers(option: str, text: str) -> list[float]:
    """Numbers above 0, separated by commas. Raises UsageError."""
    from simroute.errors import UsageError

    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text}: must be numbers separated by commas, such as 0.5,1,2") from None
    if not all(0 < number < float("inf") for number in found):
        raise UsageError(f"{option} {text}: every number must be above 0")
    return found


def _shares(option: str, text: str) -> list[float]:
    """Numbers above 0 and at most 1, separated by commas. Raises UsageError."""
    from simroute.errors import UsageError

    found = numbers(option, text)
    if max(found) > 1:
        raise UsageError(f"{option} {text}: every number must be a share, at most 1")
    return found


def _weights(text: str) -> dict[str, float]:
    """`coding=2,chat=0.5` as weights by class. Raises UsageError."""
    from simroute.errors import UsageError

    pairs = [part.partition("=") for part in text.split(",")]
    try:
        weights = {name.strip(): float(weight) for name, _, weight in pairs}
    except ValueError:
        raise UsageError(f"--mix {text}: must be CLASS=WEIGHT, such as coding=2,chat=0.5") from None
    if not all(0 <= weight < float("inf") for weight in weights.values()):
        raise UsageError(f"--mix {text}: weights must be 0 or more")
    return weights


def _loss(text: str) -> Any:
    """`zone=z`, `pool=p` or `pool=p:2`. Raises UsageError."""
    from simroute.errors import UsageError
    from simroute.planner.study.changes import Loss

    what, equals, name = text.partition("=")
    pool, colon, count = name.partition(":")
    if equals and what == "zone" and name:
        return Loss(zone=name)
    if equals and what == "pool" and pool and (not colon or (count.isdecimal() and int(count) > 0)):
        return Loss(pool=pool, replicas=int(count) if colon else None)
    raise UsageError(f"--lose {text}: must be zone=NAME, pool=NAME or pool=NAME:REPLICAS")


def _assignment(text: str) -> tuple[str, list[Any]]:
    """`path=v1,v2` as the path and its values, each read as YAML. Raises UsageError."""
    from simroute.errors import UsageError
    from simroute.yamlfile import YamlError, parse

    path, equals, values = text.partition("=")
    if not equals or not path.strip() or not values.strip():
        raise UsageError(f"--set {text}: must be PATH=VALUE,VALUE,..., such as pools[0].gpu=L4,H100")
    try:
        return path.strip(), [parse(part, text_keys=True).value for part in _split(values)]
    except YamlError as error:
        raise UsageError(f"--set {text}: value is not YAML: {error}") from None


def _split(values: str) -> list[str]:
    """The parts between commas that stand in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in values:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(letter, 0) if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
