"""Count the rooms, floors and circles of the package, and draw them: ``python -m tools.rooms``.

A room is a folder with modules, or a module directly in ``atd/``. An arrow is any import, also inside a function or
under TYPE_CHECKING, and a constant argument of ``import_module``. Floors are the longest chain of rooms, counted from
the bottom. A circle is a strongly connected component of more than one module. Nothing is imported: the source alone
is read, from the working tree or, with ``--at REVISION``, from git.

``python -m tools.rooms docs/architecture.md`` rewrites the table and the drawing between the page's markers.
"""

from __future__ import annotations

import argparse
import ast
import functools
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "atd"
BEGIN, END = "<!-- rooms -->", "<!-- /rooms -->"

Graph = dict[str, set[str]]


@dataclass(frozen=True)
class House:
    """The package as rooms and arrows.

    modules   every module with the modules that it imports
    packages  the modules that are folders
    rooms     every room with the rooms that its modules import
    """

    modules: Graph
    packages: set[str]
    rooms: Graph

    @functools.cached_property
    def circles(self) -> list[list[str]]:
        """Modules that import each other, directly or not."""
        return _circles(self.modules)

    @functools.cached_property
    def room_circles(self) -> list[list[str]]:
        """Rooms that import each other, directly or not: an arrow of each points up."""
        return _circles(self.rooms)

    @functools.cached_property
    def floors(self) -> dict[str, int]:
        """The floor of each room, 1 at the bottom; rooms of one circle share a floor."""
        parts = {room: number for number, part in enumerate(_components(self.rooms)) for room in part}
        below: dict[int, set[int]] = {number: set() for number in parts.values()}
        for room, others in self.rooms.items():
            below[parts[room]] |= {parts[other] for other in others} - {parts[room]}
        floor: dict[int, int] = {}
        for number in TopologicalSorter(below).static_order():
            floor[number] = 1 + max((floor[other] for other in below[number]), default=0)
        return {room: floor[number] for room, number in parts.items()}

    @property
    def in_the_root(self) -> list[str]:
        """Modules directly in ``atd/``, ``__init__`` and ``__main__`` among them."""
        return [
            name for name in self.modules if name == PACKAGE or (name.count(".") == 1 and name not in self.packages)
        ]

    def summary(self) -> str:
        """One line of counts."""
        return (
            f"{len(self.modules)} modules, {len(self.in_the_root)} directly in {PACKAGE}/; {len(self.rooms)} rooms on "
            f"{max(self.floors.values())} floors; {len(self.circles)} circles of "
            f"{sum(map(len, self.circles))} modules, {len(self.room_circles)} circles of rooms"
        )


def read_house(sources: Mapping[str, str]) -> House:
    """The house of ``sources``, {path relative to the repository: Python source}."""
    names = {_module_name(path): path for path in sources}
    packages = {name for name, path in names.items() if path.endswith("/__init__.py")}
    modules = {name: set(_imports(name, sources[path], names)) - {name} for name, path in names.items()}
    rooms: Graph = {}
    for name, others in modules.items():
        room = room_of(name, packages)
        rooms.setdefault(room, set()).update({room_of(other, packages) for other in others} - {room})
    return House(modules, packages, rooms)


def room_of(module: str, packages: set[str]) -> str:
    """The folder that a module lies in; a module directly in ``atd/`` is a room of its own."""
    return module if module in packages or module.count(".") == 1 else module.rpartition(".")[0]


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(name: str, source: str, modules: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in modules:
                    yield inner
                elif node.module in modules:
                    yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            constants = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
            yield from (value for value in constants if isinstance(value, str) and value in modules)


def _components(graph: Graph) -> list[list[str]]:
    """Strongly connected components (Tarjan), those below first."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            components.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return components


def _circles(graph: Graph) -> list[list[str]]:
    return [component for component in _components(graph) if len(component) > 1]


def sources_of_tree(root: Path = ROOT) -> dict[str, str]:
    """The modules of the working tree."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in (root / PACKAGE).rglob("*.py")
    }


def sources_at(revision: str, root: Path = ROOT) -> dict[str, str]:
    """The modules of a git revision."""
    archive = subprocess.run(["git", "archive", revision, PACKAGE], cwd=root, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = [member for member in tar.getmembers() if member.name.endswith(".py")]
        return {member.name: tar.extractfile(member).read().decode() for member in files}  # pyright: ignore[reportOptionalMemberAccess]


def markdown(house: House) -> str:
    """A table of the floors with their rooms, and a drawing of the arrows that no longer chain implies."""
    by_floor: dict[int, list[str]] = {}
    for room, floor in house.floors.items():
        by_floor.setdefault(floor, []).append(room)
    lines = [house.summary() + ".", "", "| floor | rooms |", "| --- | --- |"]
    for floor in sorted(by_floor, reverse=True):
        lines.append(f"| {floor} | {', '.join(f'`{room}`' for room in sorted(by_floor[floor]))} |")
    lines += ["", "```mermaid", "graph TD"]
    for room in sorted(house.rooms):
        lines += [f"    {room} --> {other}" for other in sorted(direct_imports(house.rooms, room))]
    return "\n".join([*lines, "```"])


def direct_imports(rooms: Graph, room: str) -> set[str]:
    """The rooms that `room` imports, without those that a longer chain of imports leads to."""
    others = rooms[room]
    return {other for other in others if not any(other in _reachable(rooms, between) for between in others - {other})}


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph[node]
    return seen


def main() -> int:
    """The command; exit status 1 when there is a circle."""
    parser = argparse.ArgumentParser(prog="python -m tools.rooms", description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", help="page whose part between the markers is rewritten")
    parser.add_argument("--at", metavar="REVISION", help="look at this git revision instead of the working tree")
    parser.add_argument("--markdown", action="store_true", help="print the table and the drawing")
    args = parser.parse_args()
    house = read_house(sources_at(args.at) if args.at else sources_of_tree())
    if args.page:
        text = args.page.read_text(encoding="utf-8")
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        args.page.write_text(f"{text[:begin]}\n{markdown(house)}\n{text[end:]}", encoding="utf-8")
        return 0
    print(markdown(house) if args.markdown else house.summary())
    for circle in (*house.circles, *house.room_circles):
        print(f"circle: {', '.join(circle)}", file=sys.stderr)
    return 1 if house.circles or house.room_circles else 0


if __name__ == "__main__":
    sys.exit(main())
