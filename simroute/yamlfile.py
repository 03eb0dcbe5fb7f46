"""YAML as scenarios and calibrations are written: the values of YAML 1.2, no key twice, and where each of them stands.

PyYAML parses (with libyaml, where its wheel has it) and writes; owned here is what it would decide otherwise: which
plain text is a number (`1e6` is, `yes` is text), keys that occur twice, merges, and the line and column of every
value. Imports nothing of simroute.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import yaml

Place: TypeAlias = tuple[int, int]
"""(line, column), both from 1."""
START: Place = (1, 1)
DEEPEST = 100
"""Levels of mappings and lists inside each other: more than this is no file that a person wrote."""
WIDTH = 120
"""Columns of a written line, as far as its words allow."""

_PARSER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_TAG = "tag:yaml.org,2002:"
_WORDS = {word: value for name, value in (("true", True), ("false", False), ("null", None))
          for word in (name, name.title(), name.upper())} | {"": None, "~": None}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0b[01][01_]*|0o[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|[0-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_NUMBERS_BEGIN = frozenset("-+.0123456789")
_MERGE = "<<"


class YamlError(ValueError):
    """Text that is not YAML as it is written here. `place` is None where the parser does not tell."""

    def __init__(self, problem: str, place: Place | None = None) -> None:
        super().__init__(problem)
        self.place = place


class Node(NamedTuple):
    """A value (plain dicts, lists and scalars), where it stands, and of a mapping or list the same for its items.

    `keys` says where each key of a mapping stands.
    """

    value: Any
    place: Place
    items: dict[Any, Node]
    keys: dict[Any, Place]

    def place_of(self, keys: Sequence[Any], *, on_key: bool = False) -> Place:
        """Where the value at `keys` stands (with `on_key` its last key), or the nearest that was written around it."""
        node, at = self, START
        for number, key in enumerate(keys):
            child = node.items.get(key)
            if child is None:
                break
            last = number == len(keys) - 1
            node, at = child, node.keys.get(key, child.place) if on_key and last else child.place
        return at


def parse(text: str, *, text_keys: bool = False) -> Node:
    """The one value that `text` holds; None for a text without any. With `text_keys`, keys are taken as written.

    Raises YamlError for a fault of syntax, a key that occurs twice, or a second document.
    """
    try:
        return _Reader(text.removeprefix("\ufeff"), text_keys).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or error.context or "not YAML").removeprefix("did not find ")
        raise YamlError(problem, mark and (mark.line + 1, mark.column + 1)) from None
    except yaml.YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from None


def written(value: Any) -> str:
    """`value` (dicts, lists and scalars) as YAML in blocks, lists of numbers on one line; `parse` reads it back."""
    options: dict[str, Any] = {"width": WIDTH, "sort_keys": False, "allow_unicode": True}
    return str(yaml.dump(value, Dumper=_Writer, default_flow_style=False, **options))


class _Reader:
    """Builds nodes from the parser's events."""

    def __init__(self, text: str, text_keys: bool) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_PARSER)
        self._text_keys = text_keys
        self._anchored: dict[str, Node | None] = {}

    def document(self) -> Node:
        """The root of the only document."""
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Node(None, START, {}, {})
        root = self._node(next(self._events), 0)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise YamlError("expected a single document, found another", _place(after))
        return root

    def _node(self, event: Any, depth: int) -> Node:
        """The node that begins with `event`."""
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if depth > DEEPEST:
            raise YamlError(f"nested deeper than {DEEPEST} levels", place)
        if event.anchor:
            self._anchored[event.anchor] = None  # (not to be used inside itself)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(_scalar(event, place), place, {}, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, place, depth)
        else:
            node = self._mapping(event, place, depth)
        if event.anchor:
            self._anchored[event.anchor] = node
        return node

    def _alias(self, event: Any, place: Place) -> Node:
        node = self._anchored.get(event.anchor)
        if node is None:
            known = "used inside itself" if event.anchor in self._anchored else "found undefined alias"
            raise YamlError(f"{known} '{event.anchor}'", place)
        return Node(copy.deepcopy(node.value), place, node.items, node.keys)  # nobody shares what may be changed

    def _sequence(self, event: Any, place: Place, depth: int) -> Node:
        _check_tag(event, "seq", place)
        found = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._node(event, depth + 1))
        return Node([node.value for node in found], place, dict(enumerate(found)), {})

    def _mapping(self, event: Any, place: Place, depth: int) -> Node:
        _check_tag(event, "map", place)
        items: dict[Any, Node] = {}
        keys: dict[Any, Place] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, at = self._key(event), _place(event)
            node = self._node(next(self._events), depth + 1)
            if event.value == _MERGE and event.implicit[0]:
                merged += _mappings(node, at)
                continue
            if key in items:
                raise YamlError(f'duplicate key "{key}"', at)
            items[key], keys[key] = node, at
        for other in merged:  # what is written wins, then what was merged first
            for key, node in other.items.items():
                if key not in items:
                    items[key] = Node(copy.deepcopy(node.value), other.place, node.items, node.keys)
                    keys[key] = other.place
        return Node({key: node.value for key, node in items.items()}, place, items, keys)

    def _key(self, event: Any) -> Any:
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError("a key must be plain text", _place(event))
        return event.value if self._text_keys else _scalar(event, _place(event))


def _mappings(node: Node, at: Place) -> list[Node]:
    """What `<<` merges: a mapping, or a list of mappings; each of them as if it stood at the `<<`."""
    found = list(node.items.values()) if isinstance(node.value, list) else [node]
    if not all(isinstance(each.value, dict) for each in found):
        raise YamlError(f"{_MERGE} merges a mapping or a list of mappings", at)
    return [each._replace(place=at) for each in found]


def _place(event: Any) -> Place:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _scalar(event: Any, place: Place) -> Any:
    """The value of a scalar: by its tag, by its looks where it is plain, else the text itself."""
    tag, text = event.tag, event.value
    if tag is None or tag == "!":
        return _plain(text, place) if event.implicit[0] else text
    convert = _CONVERTED.get(tag)
    if convert is None:
        raise YamlError(f"unknown tag {tag}", place)
    try:
        return convert(text)
    except (ValueError, KeyError):
        raise YamlError(f"not a {tag.removeprefix(_TAG)}: {text}", place) from None


def _plain(text: str, place: Place) -> Any:
    """A plain scalar by the rules of YAML 1.2, with underscores between digits as well."""
    if text[:1] not in _NUMBERS_BEGIN:
        return _WORDS.get(text, text)
    try:
        if _INTEGER.fullmatch(text):
            return _integer(text)
        return _float(text) if _FLOAT.fullmatch(text) else text
    except ValueError:
        raise YamlError(f"a number of {len(text)} digits", place) from None


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0 if digits.lstrip("-+")[:2] in ("0b", "0o", "0x") else 10)


def _float(text: str) -> float:
    digits = text.replace("_", "").lower()
    return float(digits.replace(".inf", "inf").replace(".nan", "nan"))


def _check_tag(event: Any, wanted: str, place: Place) -> None:
    if event.tag not in (None, "!", _TAG + wanted):
        raise YamlError(f"unknown tag {event.tag}", place)


_CONVERTED: dict[str, Callable[[str], Any]] = {
    _TAG + "str": str,
    _TAG + "int": _integer,
    _TAG + "float": _float,
    _TAG + "bool": lambda text: _WORDS[text],
    _TAG + "null": lambda text: None,
}


class _Writer(yaml.SafeDumper):  # type: ignore[misc]
    """Writes text in quotes where `parse` would take it for something else."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        """A list: on one line when it holds numbers alone."""
        numbers = all(isinstance(item, int | float) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=numbers or flow_style)


for _kind, _pattern in (("float", _FLOAT), ("int", _INTEGER)):
    _Writer.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern.pattern})$"), list(_NUMBERS_BEGIN))
