"""What a command prints at its end: tables, the verdict and paths, or one JSON document."""

import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from grail.cli.signs import plain
from grail.cli.terminal import render
from grail.reporting.audit.tables import read_audit
from grail.reporting.comparison.tables import comparison_tables
from grail.reporting.run.tables import general_table, measured_tables, read_general
from grail.reporting.verdict import verdict
from grail.results import read_results

_OUTPUTS = {
    "vanilla": "vanilla",
    "score": "scores",
    "localize": "mask.safetensors",
    "reset": "survivors.safetensors",
    "unlearn": "unlearned",
}
SAME = 0.99
"""Top sets whose Jaccard index is lower are told to differ."""
_FILE_WIDTH = 240  # columns where the output is a file: no cell is broken over lines


def results(folder: Path, as_json: bool) -> None:
    """Show what a run achieved, from the files in its directory."""
    results = read_results(folder / "results.json")
    found, general = verdict(results, read_audit(folder)), read_general(folder)
    if as_json:
        raw = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        shown = {key: raw[key] for key in ("summary", "freezing", "rows")}
        shown |= {"general": general} if general else {}
        said = {"outcome": found.outcome, "verdict": found.sentences}
        print(json.dumps({"output": str(folder), **said, **shown}))
        return
    console = Console(highlight=False)
    for table in (*measured_tables(results).values(), general_table(general)):
        if table.rows:
            console.print(render(table, console.width))
    for sentence in found.sentences:
        console.print(f"- {sentence}", markup=False)
    page = folder / "report.html"
    missing = f"no report of these results yet: grail report {folder}"
    last = f"report: {page}" if page.exists() else missing
    console.print(last, markup=False, soft_wrap=True)


def reminder(folder: Path) -> None:
    """Say which model is the result, which still knows, and what comes next."""
    name = shlex.quote(str(folder))
    for line in (
        f"result: {folder / 'unlearned'}; {folder / 'vanilla'} still knows what had to be lost.",
        f"next: grail ask {name} (talk to both), grail audit {name} (attack it),",
        f"  grail export {name} --merge --output DIR (take it away), grail purge {name} (delete "
        "what still knows)",
    ):
        print(line)


def comparison(
    found: dict[str, Any], folder: Path, as_json: bool, remarks: Sequence[str] = ()
) -> None:
    """Show the tables of a comparison (the content of comparison.json), and remarks on stderr."""
    for remark in remarks:
        print(f"warning: {plain(remark)}", file=sys.stderr)
    if as_json:
        shown = {key: found[key] for key in ("title", "methods", "differences", "best")}
        failed = [c for c in (*found["grid"], *found["cells"]) if "failed" in c]
        print(json.dumps({"output": str(folder), **shown, "failed": failed}))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    for table in comparison_tables(found):
        console.print(render(table, console.width))
        console.print(table.note + "\n", markup=False, soft_wrap=True)
    console.print(f"comparison: {folder / 'comparison.html'}", markup=False, soft_wrap=True)


def files(folder: Path, stage: str, as_json: bool) -> None:
    """Print the path that a stage has written."""
    path: Path | None = folder / _OUTPUTS[stage]
    if stage == "reset" and not path.exists():
        path = None
    if as_json:
        print(json.dumps({"output": str(folder), stage: path and str(path)}))
    else:
        print(f"wrote: {path}" if path else "nothing to write: unlearning.reset is null")


def agreement(found: Any, as_json: bool) -> int:
    """Say how far batched and looped scores agree (an ``Agreement``); return the exit code."""
    if as_json:
        worst = found.worst if math.isfinite(found.worst) else None
        print(json.dumps(vars(found) | {"worst": worst, "allowed": found.allowed}))
    else:
        print(
            f"batched and looped scores of {found.samples} samples differ by at most "
            f"{found.worst:.2e} relative (allowed: {found.allowed:.0e}; at "
            f"{found.name}, in {found.precision})."
        )
        print(_precision(found))
    return 0 if found.worst <= found.allowed else 1


def _precision(found: Any) -> str:
    """Say what the precision that a run scores in does to the top sets."""
    own = found.own.removeprefix("torch.")
    if found.jaccard is None:
        return f"What {own} does to the top sets was not compared: the model is too large."
    text = f"Scored in {own}, as a run does, the top sets have a Jaccard index of "
    text += f"{found.jaccard:.3f} with those of {found.precision.removeprefix('torch.')}."
    if found.jaccard < SAME:
        text += " They differ by more than 1 %, and so does the mask."
        text += "" if own == "float32" else " Set model.dtype: float32."
    return text
