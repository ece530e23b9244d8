"""The files of a comparison beside its comparison.json: Markdown, LaTeX, CSV and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import write_text
from grail.reporting.comparison import figures as plots
from grail.reporting.comparison.tables import comparison_csv, comparison_latex, comparison_markdown

KINDS = {"md": comparison_markdown, "tex": comparison_latex, "csv": comparison_csv}


def write_all(comparison: Mapping[str, Any], folder: Path) -> list[str]:
    """Write tables and figures into ``folder``; return what the user should know of them."""
    for kind, make in KINDS.items():
        write_text(folder / f"comparison.{kind}", make(comparison))
    if not comparison["figures"]:
        return []
    try:
        plots.draw(comparison, folder / "figures", _localization(comparison, folder))
    except InputError as error:
        return [str(error)]
    return []


def _localization(comparison: Mapping[str, Any], folder: Path) -> Any:
    """Return the localization.json of the first cell that has sets to compare."""
    for cell in comparison["cells"]:
        file = folder / cell["folder"] / "localization.json"
        if "failed" not in cell and file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found.get("jaccard"):
                return found
    return None
