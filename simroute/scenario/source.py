"""A YAML file with positions: parse it, override values in it, and say where a path of keys stands.

Owns `Source`; knows nothing of what a scenario means. Imports errors and yamlfile.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple

from simroute.errors import ScenarioError, UsageError, unknown
from simroute.yamlfile import Node, Place, YamlError, parse

Keys = tuple[str | int, ...]
"""The keys and list indices that lead to a value: ("pools", 0, "replicas")."""

_STEP = re.compile(r"(?:^|\.)(?P<key>[^.\[\]=]+)|\[(?P<item>[^\[\]]+)\]")


class Problem(NamedTuple):
    """Something wrong with the value at `keys`; with `on_key`, with the last key itself.

    `unfit` says that all names are known and all values allowed, and hardware or prices refuse it all the same.
    """

    keys: Keys
    message: str
    on_key: bool = False
    unfit: bool = False


def dotted(keys: Keys) -> str:
    """`("pools", 0, "replicas")` as `pools[0].replicas`."""
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys).removeprefix(".")


class Source:
    """The values of a YAML file (`data`: plain dicts and lists) and where each of them was written.

    Without a `path` the values were never written to a file, and places in it are not told.
    """

    def __init__(self, path: Path | None, tree: Node) -> None:
        self.path = path
        self._tree = tree
        self.data = tree.value
        self.doubts: list[Problem] = []
        """What was done to the values that whoever asked for it may not have meant."""
        self._origins: dict[Keys, str] = {}

    @classmethod
    def read(cls, path: Path) -> Source:
        """Parse `path`. Raises ScenarioError when it cannot be read, is not YAML or repeats a key."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ScenarioError([_not_found(path)]) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError([f"{path}: cannot be read as text: {error}"]) from None
        try:
            return cls(path, parse(text, text_keys=True))
        except YamlError as error:
            raise ScenarioError([f"{path}{_syntax(error)}"]) from None

    def put(self, keys: Keys, value: Any, origin: str) -> None:
        """Replace the value at `keys` (mappings on the way are made); later problems there name `origin`.

        Raises UsageError where the path leads through a value that is neither mapping nor list.
        """
        node = self.data
        for i, key in enumerate(keys):
            last = i == len(keys) - 1
            if isinstance(node, list) and isinstance(key, int) and 0 <= key < len(node):
                node[key] = value if last else node[key]
            elif isinstance(node, dict) and isinstance(key, str):
                node[key] = value if last else ({} if node.get(key) is None else node[key])
            else:
                raise UsageError(f"{origin}: {_no_such(keys[:i], key, node)}")
            node = node[key]
        self._origins = {k: v for k, v in self._origins.items() if k[: len(keys)] != keys} | {keys: origin}

    def override(self, assignment: str, option: str = "--set") -> None:
        """Apply one `path=value`; the value is read as YAML. A list item goes by index or by its `name`.

        `option` is what it was given by. Raises UsageError for what is not of that form or leads nowhere.
        """
        path, equals, text = assignment.partition("=")
        path = path.strip()
        origin = f"{option} {path}"
        if not equals or not path:
            raise UsageError(f"{option} {assignment}: must be path=value, such as pools[0].replicas=4")
        try:
            value = parse(text, text_keys=True).value
        except YamlError as error:
            raise UsageError(f"{origin}: value is not YAML: {text} ({error})") from None
        self.put(self._parse(path, origin), value, origin)

    def _parse(self, path: str, origin: str) -> Keys:
        """The keys of `path`; `pools[cheap]` becomes the index of the item named so."""
        steps = list(_STEP.finditer(path))
        if "".join(m.group(0) for m in steps) != path:
            raise UsageError(f"{origin}: not a path: write it as pools[0].replicas or router.scrape_interval_s")
        keys: Keys = ()
        for step in steps:
            item = step["item"]
            keys += (
                (step["key"],) if item is None else (int(item) if item.isdigit() else self._index(keys, item, origin),)
            )
        return keys

    def _index(self, keys: Keys, name: str, origin: str) -> int:
        """The position of the item called `name` in the list at `keys`."""
        node: Any = self.data
        for key in keys:
            node = node[key] if isinstance(node, dict) and key in node else None
        names = [str(item.get("name") if isinstance(item, dict) else item) for item in node or ()]
        if name not in names:
            raise UsageError(f"{origin}: {unknown(f'item of {dotted(keys)}', name, names)}")
        return names.index(name)

    def locate(self, problem: Problem) -> str:
        """One line: where, the path, and what is wrong."""
        keys = problem.keys
        for depth in range(len(keys), 0, -1):
            origin = self._origins.get(keys[:depth])
            option, _, path = (origin or "").partition(" ")
            if path and option != "--trace":  # an assignment, whose path may name items that `keys` count
                below = dotted(keys[depth:])
                return f"{origin}{'.' * (below[:1] not in ('', '['))}{below}: {problem.message}"
            if origin:
                return f"{origin}{'' if depth == len(keys) else ' ' + dotted(keys)}: {problem.message}"
        line, column = self.position(problem)
        places = [f"{self.path}:{line}:{column}"] if self.path else []
        places += [f"{dotted(keys)}:"] if keys else []
        return " ".join([*places, problem.message])

    def position(self, problem: Problem) -> Place:
        """(line, column), from 1, of the problem's value, or of the nearest enclosing thing that was written."""
        return self._tree.place_of(problem.keys, on_key=problem.on_key)


_HINTS = {
    "expected key": "indent it as the lines beside it",
    "mapping values are not allowed": "indent it as the lines beside it, or quote text that holds ': '",
    "tab character": "indent with spaces",
    "cannot start any token": "indent with spaces, not with a tab; quote text that begins with @, % or `",
}
"""What to do about what the parser says."""


def _syntax(error: YamlError) -> str:
    """Where the text is wrong and how, to stand behind the name of its file."""
    if error.place is None:
        return f": not YAML: {error}"
    line, column = error.place
    if str(error).startswith("duplicate"):
        return f":{line}:{column} {error}"
    hint = next((f"; {hint}" for words, hint in _HINTS.items() if words in str(error)), "")
    return f":{line}:{column} YAML syntax: {error}{hint}"


def _not_found(path: Path) -> str:
    siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    if not path.parent.is_dir():
        return f"{path}: no such file: the folder {path.parent} does not exist"
    near = difflib.get_close_matches(path.name, siblings, cutoff=0.5)
    return f"{path}: no such file" + (f": did you mean {', '.join(near)}?" if near else "")


def _no_such(above: Keys, key: str | int, node: Any) -> str:
    """Why `key` leads nowhere below `above`."""
    place = dotted(above) or "the scenario"
    if isinstance(node, list):
        allowed = f"0 to {len(node) - 1}" if node else "nothing: it is empty"
        return f"{place} is a list: its items are {allowed}, got {key}"
    kind = "a mapping" if isinstance(node, dict) else f"{node!r}, which has no parts"
    return f"{place} is {kind}: got {key}"
