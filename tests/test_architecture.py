"""The house rules that a machine can check: imports point one way, heavy libraries load late, modules stay readable."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "simroute"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
FLOORS = [
    {"cli"},
    {"planner", "calibration", "live"},
    {"report"},
    {"scenario"},
    {"fleet"},
    {"engine", "policy", "results"},
    {"hardware"},
    {"workload"},
    {"errors", "interrupt", "rng", "units", "yamlfile"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FRONT_DOORS = {"__init__", "__main__"}
LATE = {"pandas", "pyarrow", "plotly", "jinja2", "scipy"}
CLOCKLESS = {m for m in MODULES if m.startswith("engine/")} - {"engine/clock.py", "engine/replica.py"}
CLOCKS_AND_WIRES = {"simpy", "time", "datetime", "asyncio", "socket", "http", "urllib", "random"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Dotted names imported by the nodes; `from simroute import x` gives simroute.x."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; name the module in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: no function bodies, nothing that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import(child)


def room(module: str) -> str:
    return Path(module).parts[0].removesuffix(".py")


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) not in FRONT_DOORS])
def test_imports_point_one_way(module):
    own = room(module)
    assert own in FLOOR_OF, f"{own} has no place in the order of rooms"
    rooms = {name.split(".")[1] for name in imports(ast.walk(tree(module))) if name.startswith("simroute.")}
    known = rooms & FLOOR_OF.keys()
    assert {r for r in known if r != own and FLOOR_OF[r] <= FLOOR_OF[own]} == set()


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "policy"])
def test_policies_know_nothing_but_requests(module):
    names = {tuple(name.split(".")) for name in imports(ast.walk(tree(module)))}
    assert {n[1] for n in names if n[0] == "simroute"} <= {"policy", "workload", "errors", "rng", "units"}
    assert {n[0] for n in names} & CLOCKS_AND_WIRES == set()


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_load_where_they_are_used(module):
    late = LATE if room(module) == "fleet" or module in {"engine/clock.py", "engine/replica.py"} else LATE | {"simpy"}
    assert {name.split(".")[0] for name in imports(at_import(tree(module)))} & late == set()


@pytest.mark.parametrize("module", sorted({*CLOCKLESS, "engine/scheduler.py", "engine/blocks.py"}))
def test_only_the_replica_of_an_engine_knows_its_clock(module):
    assert module in MODULES, "the decisions of the engine belong in this file"
    assert {name.split(".")[0] for name in imports(ast.walk(tree(module)))} & CLOCKS_AND_WIRES == set()


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_own_and_stay_readable(module):
    assert ast.get_docstring(tree(module)), "no docstring"
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= 500
    functions = [n for n in ast.walk(tree(module)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []
