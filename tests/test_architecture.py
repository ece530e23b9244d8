"""House rules that no linter checks: imports between folders, names, lengths, and two documents."""

from __future__ import annotations

import ast
import graphlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "grail"
FILES = sorted(SOURCE.rglob("*.py"))

MAX_LINES = 300
PUBLIC = {"api", "artifacts", "data", "errors", "results", "training"}  # have public names
MAX_ENTRIES = 20  # folders and modules at the top of the package, without __init__ and __main__
MAX_FLOORS = 10  # units on the longest chain of imports

LEAVES = {"errors", "files", "progress"}  # every unit may import them; they import nothing of ours
STAGES = {"importance", "localization", "unlearning", "evaluation"}


def import_table(markdown: str) -> dict[str, set[str]]:
    """Read the table "this | may import": rows ``| `unit`, ... | `may`, `import`, ... |``."""
    table = markdown.partition("| this | may import |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", table, re.MULTILINE)
    return {
        unit: set(re.findall(r"`(\w+)`", targets))
        for units, targets in rows
        for unit in re.findall(r"`(\w+)`", units)
    }


TABLE = import_table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
# unit (a folder or a top-level module) -> units that it may import, besides itself and the leaves
ARROWS = {unit: targets for unit, targets in TABLE.items() if unit not in LEAVES}

# these must work on a machine without torch: `grail --help`, `grail report`
LIGHT = {"config", "results", "reporting"} | LEAVES
HEAVY = {"torch", "transformers", "accelerate", "peft", "safetensors", "datasets"}

BANNED_FILES = {"util", "utils", "helper", "helpers", "common", "manager", "handler", "base"}
BANNED_WORDS = {"forget", "retention", "saliency", "utils", "helpers", "manager"}

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
    if unit not in LEAVES | {""} and unit not in ARROWS:  # "" is the package's own __init__
        return [
            f"'{unit}' has no row in the import table of CONTRIBUTING.md: say what it may import"
        ]
    allowed = {unit} | (set() if unit in LEAVES else PUBLIC if not unit else ARROWS[unit] | LEAVES)
    all_units = LEAVES | set(ARROWS) | (units or set())
    problems = []
    for line, name in imported_modules(source, package):
        parts = name.split(".")
        if parts[0] != "grail" or len(parts) == 1 or parts[1] not in all_units:
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


def import_graph(files: list[tuple[str, str, str]]) -> dict[str, set[str]]:
    """Return unit -> units that it imports, from (unit, source, package) of every file."""
    graph = {unit: set() for unit, _, _ in files if unit}
    for unit, source, package in files:
        for _, name in imported_modules(source, package):
            parts = name.split(".")
            if unit and parts[0] == "grail" and len(parts) > 1 and parts[1] in graph:
                graph[unit].add(parts[1])
    return {unit: targets - {unit} for unit, targets in graph.items()}


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the longest chain of imports, from top to bottom; a circle raises CycleError."""
    chains: dict[str, list[str]] = {}
    for unit in graphlib.TopologicalSorter(graph).static_order():
        chains[unit] = [unit, *max((chains[target] for target in graph[unit]), key=len, default=[])]
    return max(chains.values(), key=len)


def public_names(source: str) -> set[str]:
    """Public functions, classes and constants that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names |= {part.id for part in parts if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def doubled_names(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the public names that more than one file defines, with the paths of these files."""
    paths = defaultdict(list)
    for path, source in files.items():
        for name in public_names(source):
            paths[name].append(path)
    return {name: sorted(where) for name, where in paths.items() if len(where) > 1}


def paths_in_tree(markdown: str) -> set[str] | None:
    """Read the fenced tree that begins with ``src/grail/``; None if there is no such block.

    Every line is a name and a description. Two spaces more are one folder deeper, and the name of
    a folder ends in a slash.
    """
    block = re.search(r"^```\w*\nsrc/grail/[^\n]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    if block is None:
        return None
    paths, folders = set(), []
    for line in filter(str.strip, block[1].splitlines()):
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2 - 1
        folders[depth:] = [name]
        paths.add("".join(folders))
    return {path for path in paths if not _implied(path)}


def paths_on_disk(package: Path) -> set[str]:
    """Return what the full tree must name: all folders, and the files beside modules."""
    paths = set()
    for path in package.rglob("*"):
        name = path.relative_to(package).as_posix() + "/" * path.is_dir()
        if "__pycache__" not in name and (path.is_dir() or (path.parent / "__init__.py").exists()):
            paths.add(name)
    return {path for path in paths if not _implied(path)}


def _implied(path: str) -> bool:
    """Tell whether a tree need not name this file."""
    return Path(path).name in {"__init__.py", "__main__.py", "py.typed"}


def place_of_tests(module: Path) -> Path:
    """Where the tests of ``module`` (relative to the package) belong, relative to tests/."""
    return module.with_name(f"test_{module.name}")


# -- the package ------------------------------------------------------------------------------


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


def test_the_table_allows_no_circle_and_no_import_between_stages():
    assert longest_chain(ARROWS)  # raises CycleError on a circle
    assert not [stage for stage in STAGES if ARROWS[stage] & STAGES]
    assert all(TABLE[unit] == set() for unit in LEAVES)


def test_the_longest_chain_of_imports_is_short():
    texts = [(unit_of(path), path.read_text(encoding="utf-8"), package_of(path)) for path in FILES]
    chain = longest_chain(import_graph(texts))
    assert len(chain) <= MAX_FLOORS, " -> ".join(chain)


def test_one_public_name_is_defined_once():
    texts = {str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8") for path in FILES}
    doubled = doubled_names(texts)
    assert not doubled, f"defined twice: {doubled}"


def test_the_package_lists_few_entries():
    units = {unit_of(path) for path in FILES} - {"", "__main__"}
    assert len(units) <= MAX_ENTRIES, sorted(units)


def test_the_trees_in_the_documents_are_those_on_disk():
    real = paths_on_disk(SOURCE)
    named = paths_in_tree((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert named == real, f"missing: {sorted(real - named)}; not there: {sorted(named - real)}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.partition("src/grail/\n")[2].partition("```")[0]
    top = {path for path in real if path.count("/") == path.endswith("/")}
    names = {
        word for line in block.splitlines() for word in re.findall(r"^  (\S+)|(\w+\.py)", line)
    }
    assert {name for pair in names for name in pair if name} == top


def test_the_loss_is_seven_calls_from_the_command(tiny_config, monkeypatch):
    """What docs/architecture.md says, read off the stack at the loss."""
    import grail.unlearning.losses
    from grail.cli.main import main

    calls = []

    def mean_per_row(values, lengths):
        frames = [frame for frame in inspect.stack() if str(SOURCE) in frame.filename]
        calls.append([frame.function for frame in reversed(frames)])
        return real(values, lengths)

    real = grail.unlearning.losses.mean_per_row
    monkeypatch.setattr("grail.unlearning.losses.mean_per_row", mean_per_row)
    assert main(["unlearn", str(tiny_config(unlearning={"objective": "unlikelihood"}))]) == 0
    chains = {tuple(call[call.index("main") :]) for call in calls}
    assert ("main", "_run", "through", "_unlearn", "run", "_step", "run", "unlikelihood") in chains


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
    assert len(banned_words("def forget_loss(saliency): retention = 1")) == 3
    assert len(banned_words("class SaliencyMap: pass")) == 1
    assert not banned_words("from accelerate import utils\nforgettable = utils.retention")
    assert banned_path(Path("data/utils.py"))
    assert not banned_path(Path("data/samples.py"))


def test_an_import_table_is_read_row_by_row():
    text = "| this | may import |\n|---|---|\n| `a`, `b` | nothing of ours |\n| `c` | `a`, `b` |\n"
    text += "\nAnother table:\n\n| `d` | `e` |\n"
    assert import_table(text) == {"a": set(), "b": set(), "c": {"a", "b"}}


def test_a_long_chain_and_a_circle_are_seen():
    lines = {"a": "from grail import b", "b": "import grail.c.x\nfrom . import y", "c": "import os"}
    files = [(unit, source, f"grail.{unit}") for unit, source in lines.items()]
    graph = import_graph(files)
    assert graph == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert longest_chain(graph) == ["a", "b", "c"]
    with pytest.raises(graphlib.CycleError):
        longest_chain(graph | {"c": {"a"}})


def test_a_name_defined_twice_is_seen():
    one = "import a\nfrom b import shared\nclass Twice: ...\nX, _Y = 1, 2\ndef f():\n    inner = 1"
    two = "if True:\n    hidden = 1\nTwice: int = 3\nX = 2\n_Y = 2\ninner = 1\nshared = 1"
    assert public_names(one) == {"Twice", "X", "f"}
    assert doubled_names({"two": two, "one": one}) == {"Twice": ["one", "two"], "X": ["one", "two"]}


def test_a_tree_that_differs_from_the_disk_is_seen(tmp_path):
    for name in ("__init__.py", "api.py", "data/__init__.py", "data/rows.py", "data/texts/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    lines = ("  data/     rows", "    rows.py   a row", "    texts/", "  api.py    for programs")
    text = "\n".join(("# Tree", "", "```", "src/grail/", *lines, "```", ""))
    assert paths_in_tree(text) == {"data/", "data/rows.py", "data/texts/", "api.py"}
    assert paths_in_tree(text) == paths_on_disk(tmp_path)
    (tmp_path / "data" / "more.py").touch()
    assert paths_on_disk(tmp_path) - paths_in_tree(text) == {"data/more.py"}
    assert paths_in_tree("```\nmake test\n```\n") is None


def test_the_mirror_of_a_file():
    assert place_of_tests(Path("data/samples.py")) == Path("data/test_samples.py")
    assert place_of_tests(Path("config.py")) == Path("test_config.py")
