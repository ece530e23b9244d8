"""The files made from comparison.json: page, Markdown, LaTeX, CSV and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.errors import InputError, reading
from grail.files import read_json, write_text
from grail.reporting.comparison.figures import draw
from grail.reporting.comparison.page import comparison_html
from grail.reporting.comparison.tables import comparison_csv, comparison_latex, comparison_markdown

_FILE = "comparison.json"
_KINDS = {
    "html": comparison_html,
    "md": comparison_markdown,
    "tex": comparison_latex,
    "csv": comparison_csv,
}


def read_comparison(folder: Path) -> dict[str, Any]:
    """Return the content of ``comparison.json``; InputError if it is not there, or not whole."""
    try:
        return read_json(folder / _FILE)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is a comparison that is not finished: it has no {_FILE}. Finish it first, "
            "with the YAML file that it was made from: grail compare FILE.yaml"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{error}.") from error


def write_all(comparison: Mapping[str, Any], folder: Path) -> list[str]:
    """Write tables and figures into ``folder``; return warnings for the user."""
    with reading(folder / _FILE):
        made = {kind: make(comparison) for kind, make in _KINDS.items()}
    for kind, text in made.items():
        write_text(folder / f"comparison.{kind}", text)
    if not comparison["figures"]:
        return []
    try:
        draw(comparison, folder / "figures", _localization(comparison, folder))
    except InputError as error:
        return [str(error)]
    return []


def _localization(comparison: Mapping[str, Any], folder: Path) -> Any:
    """Return the localization.json of the first cell that has sets to compare."""
    for cell in comparison["cells"]:
        file = folder / cell["folder"] / "localization.json"
        if "failed" not in cell and file.exists():
            try:
                localization = read_json(file)
            except ValueError as error:
                raise InputError(f"{error}.") from error
            if localization.get("jaccard"):
                return localization
    return None
