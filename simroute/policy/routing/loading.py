"""Policies that are not built in: from a dotted path, or from the entry points of installed packages.

Imports only errors; of the standard library, what finds entry points only where it is used, for it is slow to load.
Loading a policy runs the code of its module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from simroute.errors import UsageError, unknown

ENTRY_POINTS = "simroute.policies"
"""Group of entry points by which an installed package offers policies."""


class NoOptions(BaseModel):
    """Options of a policy that has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def is_path(name: str) -> bool:
    """Whether a policy's name says where to import it: `package.module:Class`, or with a dot in place of the colon."""
    parts = name.replace(":", ".", 1).split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def imported(path: str) -> type[Any]:
    """The policy class at `path` (see `is_path`); modules may lie in the working directory.

    Raises UsageError, in one line, when there is none, when importing it fails and when it is not a policy.
    """
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    module = _module(path, module_name)
    if not hasattr(module, attribute):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and hasattr(value, "choose")]
        raise UsageError(f"policy {path}: {unknown(f'policy class of {module_name}', attribute, classes)}")
    return _checked(path, getattr(module, attribute))


def offered_names() -> list[str]:
    """The names of the policies that installed packages offer."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def offered(name: str, known: Iterable[str]) -> type[Any]:
    """The policy class that an installed package offers as `name`.

    Raises UsageError for a name that nobody offers (with the nearest of those and of `known`), and as `imported`.
    """
    from importlib.metadata import entry_points

    point = next(iter(entry_points(group=ENTRY_POINTS, name=name)), None)
    if point is None:
        raise UsageError(unknown("policy", name, {*known, *offered_names()}))
    try:
        found = point.load()
    except Exception as error:
        raise UsageError(f"policy {name}: importing {point.value} failed: {_said(error)}") from error
    return _checked(name, found)


def _module(path: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
    except Exception as error:
        raise UsageError(f"policy {path}: importing {name} failed: {_said(error)}") from error
    here = os.getcwd()
    if missing == name.partition(".")[0] and here not in sys.path:
        sys.path.append(here)  # last, so that it hides nothing that is installed; worker processes inherit it
        return _module(path, name)
    where = "" if missing != name.partition(".")[0] else ": install it, or run where it lies"
    raise UsageError(f"policy {path}: no module named '{missing}'{where}")


def _checked(name: str, found: Any) -> type[Any]:
    """`found`, which must be a class with `choose` and, where it has any, with `Options` that are a pydantic model."""
    if not isinstance(found, type):
        raise UsageError(f"policy {name}: must be a class with choose(request, snapshots), got {type(found).__name__}")
    if not callable(getattr(found, "choose", None)):
        raise UsageError(f"policy {name}: has no method choose(request, snapshots)")
    options = getattr(found, "Options", NoOptions)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise UsageError(f"policy {name}: its Options must be a pydantic model, got {options!r}")
    return found


def _said(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
