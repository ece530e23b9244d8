"""Rewrite the tree in docs/architecture.md from the disk: `python tests/scripts/tree.py`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "grail"


def about(file: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")


def lines(folder: Path, depth: int = 1) -> list[str]:
    """Return the tree below a folder: folders first; what is no module keeps its words."""
    listed = []
    entries = [
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(("__", ".")) and entry.name != "py.typed"
    ]
    for entry in sorted(entries, key=lambda entry: (entry.is_file(), entry.name)):
        name = "  " * depth + entry.name + "/" * entry.is_dir()
        code = entry / "__init__.py" if entry.is_dir() else entry
        said = about(code) if code.suffix == ".py" and code.is_file() else KEPT.get(entry.name, "")
        listed.append(f"{name:<28}{said}".rstrip())
        if entry.is_dir() and code.is_file():
            listed += lines(entry, depth + 1)
    return listed


page = ROOT / "docs" / "architecture.md"
text = page.read_text(encoding="utf-8")
start = text.index("src/grail/\n") + len("src/grail/\n")
end = text.index("```", start)
KEPT = {
    line.split()[0].rstrip("/"): line.strip().partition(" ")[2].strip()
    for line in text[start:end].splitlines()
}
page.write_text(text[:start] + "\n".join(lines(SOURCE)) + "\n" + text[end:], encoding="utf-8")
