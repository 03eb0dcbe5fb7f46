"""The plan's routing policy in the router of vLLM's production stack, where it has a counterpart there.

What that router does was read in its `routing_logic.py`; the names are those of its `--routing-logic`. Imports
`common`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simroute.planner.emit.common import Server, policy_words

ROUTER_IMAGE = ("lmcache/lmstack-router", "latest")
"""Repository and tag that the stack's chart has by default."""
SESSION_KEY = "x-session-id"


class Routing(NamedTuple):
    """`logic` for the router; `exact` where it decides as the plan's policy does; `words` say what differs."""

    logic: str
    exact: bool
    words: tuple[str, ...]


_NEAR = {
    "session_affinity": (
        "session",
        f"near the plan's session_affinity: a hash ring over the header {SESSION_KEY}, which clients have to send; a "
        "request without it goes where fewest requests a second go, and load never overrules the ring",
    ),
    "prefix_affinity": (
        "prefixaware",
        "near the plan's prefix_affinity: the longest prefix of the text in pieces of 128 characters that this router "
        "has sent before; it forgets nothing and does not look at load",
    ),
    "prefix_precise": (
        "prefixaware",
        "in place of the plan's prefix_precise: its counterpart kvaware asks LMCache, which would have to run in every "
        "engine and was not simulated; prefixaware guesses from the text what each engine has cached",
    ),
    "random": ("roundrobin", "in place of the plan's random: roundrobin spreads requests more evenly"),
}


def routing(plan: Mapping[str, Any], found: Sequence[Server], *, discovers: bool = True) -> Routing:
    """The nearest thing to the plan's policy, and in words how near that is.

    A router that `discovers` its engines asks them for all their names; a list of backends gives each of them one.
    """
    name = str((plan.get("policy") or {}).get("name", "round_robin"))
    if sum(server.replicas for server in found) == 1:
        return Routing("roundrobin", True, ("one replica: there is nothing to choose",))
    if name == "round_robin":
        return Routing("roundrobin", True, ("the plan's round_robin",))
    if name in _NEAR:
        logic, words = _NEAR[name]
        return Routing(logic, False, (words, *_pools(found, discovers)))
    return Routing(
        "roundrobin",
        False,
        (
            f"the plan's policy {policy_words(plan)} has no counterpart in this router: roundrobin stands in its place,"
            " and the plan's latencies and quality do not hold for it. Plan with round_robin to see what that costs",
            *_pools(found, discovers),
        ),
    )


def _pools(found: Sequence[Server], discovers: bool) -> tuple[str, ...]:
    if len(found) == 1:
        return ()
    alike = "it treats the replicas of all pools alike"
    if not discovers:
        return (f"{alike}, by one name; who wants one pool asks its replicas at their own ports",)
    named = ", ".join(server.name for server in found)
    return (f"{alike}; a client that asks for one of {named} as its model gets it",)
