"""Options of what a scenario calls by name: the model that belongs to a name, and every mistake with the keys to it.

Shared by the registries of routing, admission and autoscaling. May import errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from simroute.errors import UsageError, unknown

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
"""A finite number above 0."""
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""A finite number of at least 0."""


class OptionProblem(NamedTuple):
    """One wrong option: the keys that lead to it, and what is wrong with it."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (".".join(map(str, self.path)), self.message)))


def options_of(what: str, name: str, registry: Mapping[str, type[Any]]) -> type[BaseModel]:
    """The model of the options of `name`. Raises UsageError for a name that `registry` lacks, with the nearest ones."""
    if name not in registry:
        raise UsageError(unknown(what, name, registry))
    options: type[BaseModel] = registry[name].Options
    return options


def problems_in(model: type[BaseModel], options: Mapping[str, Any]) -> list[OptionProblem]:
    """Everything wrong with `options` for `model`, in the order of the file."""
    try:
        model.model_validate(dict(options))
    except ValidationError as error:
        return [_problem(model, dict(e)) for e in error.errors(include_url=False)]
    return []


def parse_options(whose: str, model: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    """`options` as a `model`. Raises UsageError with all that is wrong, a line each that begins with `whose`."""
    problems = problems_in(model, options)
    if problems:
        raise UsageError("\n".join(f"{whose}: {problem}" for problem in problems))
    return model.model_validate(dict(options))


def _problem(model: type[BaseModel], error: Mapping[str, Any]) -> OptionProblem:
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return OptionProblem(path, unknown("option", str(path[-1]), _option_names(model, nested=len(path) > 1)))
    got = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r}"
    return OptionProblem(path, error["msg"].removeprefix("Value error, ") + got)


def _option_names(model: type[BaseModel], *, nested: bool) -> list[str]:
    """The options of `model`, or those of the models inside it."""
    schema = model.model_json_schema()
    models = schema.get("$defs", {}).values() if nested else [schema]
    return [option for part in models for option in part.get("properties", {})]
