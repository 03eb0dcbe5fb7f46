"""A plan as files that can be deployed: one module a kind, `emit` chooses. Imports errors and the modules beside it.

A plan and its document are plain JSON, as `simroute plan` writes them to plan.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from simroute.errors import UsageError, unknown
from simroute.planner.emit import compose, kubernetes, production_stack, vllm
from simroute.planner.emit.common import servers
from simroute.planner.emit.routing import routing

KINDS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, str]]] = {
    "vllm": vllm.files,
    "compose": compose.files,
    "k8s": kubernetes.files,
    "production-stack": production_stack.files,
}
"""Every kind of output by its name: a function of a plan and its document that gives file names and texts."""


def emit(kind: str, plan: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """The plan as files of one kind: file name to text.

    Raises UsageError for an unknown kind or a plan without pools, CatalogueError for a GPU or scheme that the
    catalogue does not have.
    """
    if kind not in KINDS:
        raise UsageError(f"--emit {kind}: {unknown('kind', kind, KINDS)}")
    if not plan.get("pools"):
        raise UsageError(f"--emit {kind}: the plan has no pools: there is nothing to deploy")
    return KINDS[kind](plan, document)


def unlike(kind: str, plan: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """How files of one kind route otherwise than the plan, in a line; empty where they do not, or do not route."""
    found = servers(plan, document)
    if kind == "k8s":
        return next(kubernetes.unlike(plan, found), "")
    chosen = routing(plan, found)
    return "" if kind == "vllm" or chosen.exact else chosen.words[0]
