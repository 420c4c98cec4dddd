"""How the code is laid out, in numbers: lines, modules, imports, classes, repeated facts.

    python benchmarks/house.py [--json]

Lines are physical ones of `exporters`, `graphstore`, `analysis`, `cli` and `src`. An import counts wherever
it stands: at the top, inside a function, or under TYPE_CHECKING. Import depth is the number of modules on the
longest chain after modules that import each other are taken as one.
"""

import argparse
import ast
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
TABLE = "emergraph.exporters.operations"
ROOMS = {
    "exporters": "emergraph.exporters",
    "graphstore": "emergraph.graphstore",
    "analysis": "emergraph.analysis",
    "cli": "emergraph.cli",
    "src/emergraph": "emergraph",
}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="as JSON, with the names behind each figure")
    arguments = parser.parse_args()
    figures = measure(ROOT)
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        shown = len(value) if isinstance(value, list | dict) else value
        print(f"{name:48} {shown:>10,}" if isinstance(shown, int) else f"{name:48} {shown:>10}")


def measure(root: Path) -> dict[str, object]:
    """Return the figures of a checkout by name."""
    sources = {name: path.read_text(encoding="utf-8") for name, path in modules(root)}
    trees = {name: ast.parse(text) for name, text in sources.items()}
    graph = imports(trees)
    importers = {name: sorted(graph.predecessors(name)) for name in trees}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    dataclasses = [node for node in classes if "dataclass" in _decorators(node)]
    literals = operation_literals(trees)
    return {
        "lines": sum(len(text.splitlines()) for text in sources.values()),
        "modules": len(trees),
        "modules with one importer": [
            name for name, found in importers.items() if len(found) == 1 and not _is_package(name, trees)
        ],
        "import depth": depth(graph),
        "classes": len(classes),
        "dataclasses": len(dataclasses),
        "dataclasses, per cent": round(100 * len(dataclasses) / len(classes), 1),
        "operations as literals in more than 3 modules": {
            op: len(found) for op, found in sorted(literals.items()) if len(found) > 3
        },
        "operation literals": sum(map(len, literals.values())),
        "command-line options": command_line_options(trees),
    }


def _decorators(node: ast.ClassDef) -> str:
    return " ".join(map(ast.unparse, node.decorator_list))


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of every module."""
    for room, package in ROOMS.items():
        for path in sorted((root / room).rglob("*.py")):
            below = path.relative_to(root / room).with_suffix("")
            if any((root / room / parent).is_symlink() for parent in below.parents):
                continue
            parts = [part for part in below.parts if part != "__init__"]
            yield ".".join([package, *parts]), path


def _is_package(name: str, trees: dict[str, ast.Module]) -> bool:
    return any(other.startswith(f"{name}.") for other in trees)


def imports(trees: dict[str, ast.Module]) -> "nx.DiGraph[str]":
    """Return which module imports which."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(trees)
    for name, tree in trees.items():
        for node in ast.walk(tree):
            for target in _targets(node):
                found = _known(target, trees)
                if found is not None and found != name:
                    graph.add_edge(name, found)
    return graph


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _known(target: str, trees: dict[str, ast.Module]) -> str | None:
    """Return the module that a dotted name leads to: itself, or the one that defines the name."""
    if target in trees:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in trees else None


def depth(graph: "nx.DiGraph[str]") -> int:
    """Return the number of modules on the longest chain of imports."""
    condensed = nx.condensation(graph)
    sizes = dict.fromkeys(condensed, 1)
    for node in reversed(list(nx.topological_sort(condensed))):
        sizes[node] = 1 + max((sizes[below] for below in condensed.successors(node)), default=0)
    return max(sizes.values())


def operation_literals(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return the modules besides the table in which each operation type of ONNX stands as a string.

    Names that are also ordinary words in this code (a layer kind, a heading) count all the same.
    """
    import onnx.defs

    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        if name == TABLE:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
                found.setdefault(node.value, set()).add(name)
    return found


def command_line_options(trees: dict[str, ast.Module]) -> int:
    """Return how many options and arguments the command line declares by hand."""
    calls = Counter(
        ast.unparse(node.func)
        for name, tree in trees.items()
        if name.startswith("emergraph.cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )
    return calls["typer.Option"] + calls["typer.Argument"]


if __name__ == "__main__":
    main()
