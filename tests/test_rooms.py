"""Every module is in a room, and knows only its own room and those below it."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dylora"

# From the ground up: a module may import from its own room and from those before it.
ROOMS = [
    "dylora",  # the library, at the root of the package
    "dylora.metrics",
    "dylora.suite",
    "dylora.tasks",
    "dylora.suite.validation",  # a configuration is checked against metrics and tasks
    "dylora.pretraining",
    "dylora.training",
    "dylora.results",
    "dylora.__main__",  # python -m dylora
]
NESTED = "dylora.nested"  # the one module that is about PEFT's own layers
LIBRARY_NEEDS = {"numpy", "safetensors", "torch", "transformers"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The longest name of a room that the module's name begins with."""
    return max((r for r in ROOMS if f"{module}.".startswith(f"{r}.")), key=len)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All that can run: what stands under `if TYPE_CHECKING:` is left out."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield from nodes(child)


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module imports, also within a function or by a name in a string."""
    found = set()
    for node in nodes(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, f"{module}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {node.module}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value.partition(":")[0]} & MODULES.keys() - {"dylora"}
    return frozenset(found)


def own(names: frozenset[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "dylora"}


def all_below(module: str) -> set[str]:
    """The modules of this package that importing `module` can import in turn."""
    seen, waiting = {module}, [module]
    while waiting:
        new = own(imports(waiting.pop())) - seen
        seen |= new
        waiting += new
    return seen


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_nothing_from_a_room_above(module: str) -> None:
    ground = ROOMS.index(room(module))
    above = {name for name in own(imports(module)) if ROOMS.index(room(name)) > ground}
    assert not above, f"{module} ({room(module)}) knows of what is above it"


def test_the_library_needs_four_packages_and_peft_for_models_of_peft() -> None:
    needed: dict[bool, set[str]] = {True: set(), False: set()}
    for module in MODULES:
        if room(module) == "dylora":
            packages = {name.partition(".")[0] for name in imports(module)}
            needed[module == NESTED] |= packages - {"dylora"} - sys.stdlib_module_names
    assert needed[False] == LIBRARY_NEEDS
    assert needed[True] <= LIBRARY_NEEDS | {"peft"}
    users = {module for module in MODULES if NESTED in imports(module)}
    assert users == {"dylora"}  # which imports it for those who ask for `dylora.nest`


def test_metrics_know_of_the_library_only_its_error() -> None:
    for module in MODULES:
        if room(module) == "dylora.metrics":
            others = {n for n in own(imports(module)) if room(n) != "dylora.metrics"}
            assert others <= {"dylora.errors"}, module


def test_results_need_neither_torch_nor_a_training() -> None:
    for module in MODULES:
        if room(module) == "dylora.results":
            reached = all_below(module)
            with_torch = {m for m in reached for name in imports(m) if name.startswith("torch")}
            assert not with_torch, module
            assert not {m for m in reached if room(m) in ("dylora.training", "dylora.pretraining")}


def test_a_name_of_a_class_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]
