"""Exact-match tasks: one JSON object a line, with a prompt, the answers that count as right and a request class.

Owns the file's format and what counts as a match. Imports errors and pydantic.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from simroute.errors import UsageError, unknown
from simroute.workload.columns import DEFAULT_NAME

Text = Annotated[str, Field(min_length=1, strict=True)]


class Message(BaseModel):
    """One message of a conversation, as the endpoint takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Text
    content: Text


class Task(BaseModel):
    """One question with its right answers.

    `prompt` is one user message, or `messages` a conversation. `answer` is one text, or several of which any will do.
    `extract` is a regular expression: its first group (or all of it), at its last match, is what is compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Text | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1)] | None = None
    answer: Annotated[tuple[Text, ...], Field(min_length=1)]
    request_class: Text = DEFAULT_NAME
    extract: Text | None = None
    max_tokens: Annotated[int, Field(ge=1, strict=True)] = 512
    id: str | int | None = None

    @field_validator("answer", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (str(value),) if isinstance(value, str | int | float) and not isinstance(value, bool) else value

    @field_validator("extract")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _asks(self) -> Task:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages, one of the two")
        return self

    def conversation(self) -> list[dict[str, str]]:
        """The messages to send."""
        if self.messages is not None:
            return [message.model_dump() for message in self.messages]
        return [{"role": "user", "content": self.prompt or ""}]

    def is_right(self, reply: str) -> bool:
        """Whether the reply, or what `extract` finds in it, is one of the answers."""
        given = self.extracted(reply)
        return given is not None and any(same(given, answer) for answer in self.answer)

    def extracted(self, reply: str) -> str | None:
        """What is compared; None where `extract` finds nothing."""
        if self.extract is None:
            return reply
        matches = list(re.finditer(self.extract, reply))
        if not matches:
            return None
        return matches[-1].group(1 if matches[-1].re.groups else 0)


def same(given: str, answer: str) -> bool:
    """Whether two texts are the same answer: as numbers, or apart from case, outer quotes, blanks and a final stop."""
    one, other = _number(given), _number(answer)
    if one is not None and other is not None:
        return math.isclose(one, other, rel_tol=1e-9)
    return _plain(given) == _plain(answer)


def read_tasks(path: Path) -> list[Task]:
    """The tasks in a JSON-lines file. Raises UsageError naming the first faulty line, or when there are none."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: cannot be read: it is not text") from None
    lines = enumerate(text.split("\n"), start=1)
    tasks = [_task(f"{path}:{number}", line) for number, line in lines if line.strip()]
    if not tasks:
        raise UsageError(f"{path}: no tasks in it")
    return tasks


def _task(where: str, line: str) -> Task:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{where}: must be an object with prompt, answer and request_class")
    for name in data:
        if name not in Task.model_fields:
            raise UsageError(f"{where}: {unknown('field', name, Task.model_fields)}")
    try:
        return Task.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        place = ".".join(str(key) for key in found["loc"])
        if found["type"] == "missing":
            raise UsageError(f"{where}: {place} is missing") from None
        message = found["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {f'{place}: ' if place else ''}{message[:1].lower()}{message[1:]}") from None


def _number(text: str) -> float | None:
    try:
        value = float(_plain(text).replace(",", "").removeprefix("$").removesuffix("%"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").strip("\"'`").rstrip(".").strip().casefold()
