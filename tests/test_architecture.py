"""The house rules that no linter knows: who imports whom, names of files, their length."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "grail"
FILES = sorted(SOURCE.rglob("*.py"))

MAX_LINES = 300

LEAVES = {"errors", "files", "progress"}  # importable by all; they import nothing of ours

STAGES = {"importance", "localization", "unlearning", "evaluation"}

# unit (a folder or a top-level module) -> the units it may import, besides itself and the leaves
ARROWS: dict[str, set[str]] = {
    "artifacts": set(),
    "config": set(),
    "results": set(),
    "data": {"config"},
    "localization": {"artifacts", "config"},
    "reporting": {"config", "results"},
    "model": {"config", "data"},
    "training": {"artifacts", "config", "data", "model"},
    "importance": {"artifacts", "config", "data", "model"},
    "evaluation": {"config", "data", "model", "results"},
    "unlearning": {"config", "data", "model", "training"},
    "run": {"artifacts", "config", "data", "model", "reporting", "results", "training"} | STAGES,
    "audit": {"artifacts", "config", "data", "evaluation", "model", "reporting", "results"}
    | {"run", "training"},
    "forecast": {"artifacts", "config", "data", "evaluation", "importance", "model", "run"}
    | {"unlearning"},
    "comparison": {"artifacts", "config", "results", "run"},
    "api": {"audit", "config", "results", "run"},
    "cli": {"audit", "comparison", "config", "forecast", "model", "reporting", "results", "run"},
    "__main__": {"cli"},
}

# work that must also go on a machine without torch: `grail --help`, `grail report`
LIGHT = {"config", "results", "reporting"} | LEAVES
HEAVY = {"torch", "transformers", "accelerate", "peft", "safetensors", "datasets"}

BANNED_FILES = {"util", "utils", "helper", "helpers", "common", "manager", "handler", "base"}
BANNED_WORDS = {"forget", "retention", "saliency", "teacher", "utils", "helpers", "manager"}


# -- the checks: source text in, problems out ---------------------------------------------------


def unit_of(path: Path) -> str:
    """The folder or top-level module a file belongs to; '' for the package's own __init__."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported_modules(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) for every import, wherever it stands; relative ones resolved.

    ``from grail import x`` yields ``grail.x``: with that, a unit is seen however it is imported.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            above = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            yield from ((node.lineno, str(name)) for name in names)


def _called(call: ast.Call) -> str:
    name = call.func
    return name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")


def wrong_arrows(unit, source, package="grail", units: set[str] | None = None) -> list[str]:
    """Imports of our own that the table does not allow to ``unit``."""
    if unit not in LEAVES | {""} and unit not in ARROWS:
        return [
            f"'{unit}' has no row in ARROWS (tests/test_architecture.py): say what it may import"
        ]
    allowed = {unit} | (set() if unit in LEAVES | {""} else ARROWS[unit] | LEAVES)
    known = LEAVES | set(ARROWS) | (units or set())
    problems = []
    for line, name in imported_modules(source, package):
        parts = name.split(".")
        if parts[0] != "grail" or len(parts) == 1 or parts[1] not in known:
            continue  # not ours, or a name of the package's own __init__, as in grail.__version__
        if parts[1] not in allowed:
            choices = ", ".join(sorted(allowed - {unit})) or "nothing of ours"
            problems.append(f"line {line}: {unit or '__init__'} -> {parts[1]} (may: {choices})")
    return problems


def heavy_imports(source: str, package: str = "grail") -> list[str]:
    return [
        f"line {line}: imports {name}"
        for line, name in imported_modules(source, package)
        if name.split(".")[0] in HEAVY
    ]


def defined_names(source: str) -> Iterator[tuple[int, str]]:
    """Names that this file gives to things; names it only uses belong to others."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def banned_words(source: str) -> list[str]:
    problems = []
    for line, name in defined_names(source):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
        problems += [f"line {line}: '{name}' says {word}" for word in words if word in BANNED_WORDS]
    return problems


def wrong_shape(source: str) -> list[str]:
    """A file that does not say what it is for, or is too long to be for one thing."""
    problems = [] if ast.get_docstring(ast.parse(source)) else ["no module docstring"]
    count = len(source.splitlines())
    return problems + ([f"{count} lines, at most {MAX_LINES}"] if count > MAX_LINES else [])


def banned_path(path: Path) -> list[str]:
    names = [part.removesuffix(".py").strip("_") for part in path.parts]
    return [f"a module called '{name}' is for nothing" for name in names if name in BANNED_FILES]


def place_of_tests(module: Path) -> Path:
    """Where the tests of ``module`` (relative to the package) belong, relative to tests/."""
    return module.with_name(f"test_{module.name}")


# -- the house --------------------------------------------------------------------------------


def package_of(path: Path) -> str:
    return ".".join(("grail", *path.relative_to(SOURCE).parent.parts))


def over_all_files(check) -> str:
    """Run ``check(path, source)`` over the package; one line per problem."""
    lines = []
    for path in FILES:
        for problem in check(path, path.read_text(encoding="utf-8")):
            lines.append(f"{path.relative_to(ROOT)}: {problem}")
    return "\n".join(lines)


def test_the_package_is_found():
    assert FILES, f"no source below {SOURCE}"


def test_arrows_go_down():
    units = {unit_of(path) for path in FILES} - {""}
    problems = over_all_files(
        lambda path, text: wrong_arrows(unit_of(path), text, package_of(path), units)
    )
    assert not problems, problems


def test_the_table_has_no_cycle_and_no_arrow_between_stages():
    left = {unit: set(targets) for unit, targets in ARROWS.items()}
    while done := {unit for unit, targets in left.items() if not targets & set(left)}:
        left = {unit: targets for unit, targets in left.items() if unit not in done}
    assert not left, f"a cycle among {sorted(left)}"
    assert not [stage for stage in STAGES if ARROWS[stage] & STAGES]


def test_light_modules_need_no_torch():
    problems = over_all_files(
        lambda path, text: heavy_imports(text, package_of(path)) if unit_of(path) in LIGHT else []
    )
    assert not problems, problems


def test_files_are_short_and_say_what_they_are_for():
    problems = over_all_files(lambda path, text: wrong_shape(text))
    assert not problems, problems


def test_names_keep_to_the_vocabulary():
    problems = over_all_files(
        lambda path, text: banned_path(path.relative_to(SOURCE)) + banned_words(text)
    )
    assert not problems, problems


def test_every_module_has_its_test_file():
    modules = [path.relative_to(SOURCE) for path in FILES if path.name != "__init__.py"]
    missing = [
        f"tests/{place_of_tests(module)} is missing (for src/grail/{module})"
        for module in modules
        if not (ROOT / "tests" / place_of_tests(module)).is_file()
    ]
    assert not missing, "\n".join(missing)


# -- the checks themselves can fail -----------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "source", "arrow"),
    [
        ("config", "from grail.data.samples import Sample", "config -> data"),
        ("importance", "import grail.localization.select", "importance -> localization"),
        ("importance", "from grail import unlearning", "importance -> unlearning"),
        ("reporting", "def f():\n    from grail.model import load", "reporting -> model"),
        ("evaluation", "from ..unlearning import losses", "evaluation -> unlearning"),
        (
            "data",
            "import importlib\nimportlib.import_module('grail.training.loop')",
            "data -> training",
        ),
        ("files", "from grail.errors import InputError", "files -> errors"),
        ("", "from grail.config import Config", "__init__ -> config"),
    ],
)
def test_a_wrong_arrow_is_seen(unit, source, arrow):
    (problem,) = wrong_arrows(unit, source, package=f"grail.{unit}")
    assert arrow in problem


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("cli", "from grail import __version__\nfrom grail.run.pipeline import Run"),
        ("training", "import torch\nfrom grail.artifacts import Mask\nfrom grail import errors"),
        ("importance", "from . import gradients\nfrom .gradients import plain"),
        ("errors", "from dataclasses import dataclass"),
    ],
)
def test_an_allowed_arrow_passes(unit, source):
    assert not wrong_arrows(unit, source, package=f"grail.{unit}")


def test_a_unit_without_a_row_is_named():
    (problem,) = wrong_arrows("dashboard", "import json")
    assert "'dashboard' has no row" in problem
    assert wrong_arrows("config", "from grail import dashboard", units={"dashboard"})


def test_a_heavy_import_is_seen():
    assert heavy_imports("def f():\n    import torch.nn as nn") == ["line 2: imports torch.nn"]
    assert not heavy_imports("import json")


def test_a_bad_file_is_seen():
    assert wrong_shape("x = 1\n") == ["no module docstring"]
    assert wrong_shape('"""Doc."""\n' * (MAX_LINES + 1)) == ["301 lines, at most 300"]
    assert not wrong_shape('"""Doc."""\n' * MAX_LINES)


def test_a_banned_word_is_seen():
    assert len(banned_words("def forget_loss(teacher): retention = 1")) == 3
    assert len(banned_words("class SaliencyMap: pass")) == 1
    assert not banned_words("from accelerate import utils\nforgettable = utils.retention")
    assert banned_path(Path("data/utils.py"))
    assert not banned_path(Path("data/samples.py"))


def test_the_mirror_of_a_file():
    assert place_of_tests(Path("data/samples.py")) == Path("data/test_samples.py")
    assert place_of_tests(Path("config.py")) == Path("test_config.py")
