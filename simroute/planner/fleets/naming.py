"""Policies whose options name pools, in plans: which fleets they can route, and what pools are called in them.

A candidate's `name` stands for whichever of its variants a fleet has; a variant may also be named in full. What a
policy needs is asked of the policy itself, which refuses pools that do not exist.
Imports errors, rng, policy and, of scenario, models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from simroute.errors import SimrouteError
from simroute.policy.context import PolicyContext
from simroute.policy.routing import make_policy
from simroute.policy.snapshot import VariantInfo
from simroute.rng import stream
from simroute.scenario.models import PolicySpec


def said(policy: PolicySpec) -> frozenset[str]:
    """Every text in a policy's options, whatever it stands for."""
    return frozenset(_texts(list(policy.options.values())))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def called(policy: PolicySpec, variants: Sequence[tuple[str, str | None]]) -> list[str]:
    """What the pools of a fleet are called for a policy, given each one's own name and its candidate's.

    Its candidate's where the policy says that and no other pool of the fleet has it; else its own.
    """
    texts = said(policy)
    shared = Counter(family for _, family in variants)
    return [
        family if family in texts and shared[family] == 1 and own not in texts and family is not None else own
        for own, family in variants
    ]


def refusal(policy: PolicySpec, names: Sequence[str]) -> str | None:
    """Why a policy cannot route pools of these names; None where it can."""
    variants = [VariantInfo(name, "", "", "", 1, 0.0, 0.0, 1, {}) for name in names]
    build = partial(make_policy, policy.name, policy.options)
    try:
        build(PolicyContext(variants, range(len(variants)), stream(0, "check")))
    except SimrouteError as error:
        return str(error)
    return None


def needed(policy: PolicySpec, names: Sequence[str]) -> list[str]:
    """Those of these names, which it can route together, that a policy cannot do without."""
    texts = said(policy)
    others = [name for name in names if name not in texts] or ["another"]
    told = [name for name in names if name in texts]
    return [name for name in told if refusal(policy, [*others, *(each for each in told if each != name)]) is not None]
