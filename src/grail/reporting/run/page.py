"""One run as a page and as Markdown: self-contained, and the same bytes for the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from grail.config.file import read
from grail.config.merge import flatten
from grail.errors import InputError
from grail.files import dump_yaml, write_text
from grail.reporting.audit.tables import audit_markdown, audit_section, read_audit
from grail.reporting.run.charts import curve, layer_chart
from grail.reporting.run.general import general_table, read_general
from grail.reporting.run.measured import measured
from grail.reporting.run.verdict import WARNING, verdict
from grail.reporting.tables import (
    MISSING,
    Pair,
    Table,
    escaped,
    finite,
    markdown,
    overlap_table,
    successes,
)
from grail.results import Results, read_results

SAMPLES_PER_SIDE = 2


def report(folder: Path) -> tuple[Path, Path]:
    """Write the report of a run directory from the files in it alone; return both paths.

    Raises:
        InputError: if the run has no results yet, or lacks a file.
    """
    results = read_results(folder / "results.json")
    try:
        run = {
            "config": read(folder / "config.yaml")[1],
            "localization": json.loads((folder / "localization.json").read_text(encoding="utf-8")),
            "training": _lines(folder / "train.jsonl"),
            "samples": _lines(folder / "samples.jsonl"),
            "general": read_general(folder),
            "audit": read_audit(folder),
        }
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: a file of this run is missing or damaged ({error})."
        ) from error
    return write_report(folder, results, run)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_report(folder: Path, results: Results, run: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html`` (each whole or not at all); return both paths.

    Args:
        folder: Where the two files go.
        results: The rows, the proof of freezing and the summary of the run.
        run: "config" (resolved, with made_with), "localization", "training" (lines of
            train.jsonl), "samples" (lines of samples.jsonl), "general" (general.json) and
            "audit" (audit.json); empty ones are left out.

    Raises:
        OSError: if the folder cannot be written.
    """
    content = _content(results, run)
    texts = {"report.md": _as_markdown(content), "report.html": _as_html(content)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.md", folder / "report.html"


def _content(results: Results, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that both files show."""
    config = {k: v for k, v in run["config"].items() if k != "made_with"}
    localization = run.get("localization") or {}
    return {
        "name": str(config.get("output", "RUN")),
        "about": _about(config),
        "verdict": verdict(results),
        **measured(results),
        "audit": audit_section(run.get("audit")),
        "bars": _success_bars(results),
        "general": general_table(run.get("general") or {}),
        "overlap": overlap_table(localization),
        "layers": _layer_table(localization.get("layers") or {}),
        "layer_chart": layer_chart(localization.get("layers") or {}),
        "curve": curve(run.get("training") or []),
        "freezing": _freezing_table(results.freezing),
        "samples": _sample_table(run.get("samples") or []),
        "settings": dump_yaml(config),
        "made_with": _made_with_table(run["config"].get("made_with") or {}),
        "warning": WARNING,
    }


def _as_html(content: Mapping[str, Any]) -> str:
    return _template().render(content)


@cache
def _template() -> Template:
    source = resources.files("grail.reporting.run").joinpath("page.html.jinja")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source.read_text(encoding="utf-8"))


def _as_markdown(content: Mapping[str, Any]) -> str:
    """Return the same tables as Markdown; settings are indented, so nothing in them is markup."""
    sentences = "".join(f"- {escaped(sentence)}\n" for sentence in content["verdict"])
    head = f"# grail report: {escaped(content['name'])}\n\n{escaped(content['about'])}\n"
    names = ("success", "text", "memorization", "membership", "general", "overlap", "layers")
    tables = [content[name] for name in (*names, "freezing", "samples", "made_with")]
    pieces = [
        head,
        f"## Verdict\n\n{sentences}",
        *filter(None, [audit_markdown(content["audit"])]),
        *(markdown(t) for t in tables if t.rows or t.note),
    ]
    indented = "".join(f"    {line}\n" for line in content["settings"].splitlines())
    pieces.append(f"## Settings\n\n{indented}")
    pieces.append(f"## Replay\n\n    grail run {content['name']}/config.yaml\n")
    return "\n".join(pieces)


def _about(config: Mapping[str, Any]) -> str:
    """Name model, localizer, objective and seed in one line."""
    keys = ("model.name", "localization.method", "unlearning.objective", "seed")
    words = ("model", "localizer", "objective", "seed")
    flat = dict(flatten(config))
    return ", ".join(f"{w} {flat[key]}" for key, w in zip(keys, words, strict=True) if key in flat)


def _success_bars(results: Results) -> list[list[list[tuple[str, float]]]]:
    """Return the bars (model, percent) per row of the success table and column US, RS, HS, Avg."""
    columns = ("US", "RS", "HS", "Avg")
    return [[_bars(row.pairs.get(column)) for column in columns] for row in successes(results)]


def _bars(values: Pair | None) -> list[tuple[str, float]]:
    named = zip(("vanilla", "unlearned"), values or (), strict=False)
    return [(model, round(min(max(v, 0.0), 100.0), 1)) for model, v in named if finite(v)]


def _layer_table(layers: Mapping[str, Mapping[str, Any]]) -> Table:
    counts = ("entries", "op_ur", "op_rr", "frozen")
    rows = tuple(
        (name, *(f"{layer[c]:,}" for c in counts), f"{layer['frozen_fraction']:.1%}")
        for name, layer in layers.items()
    )
    columns = ("Layer", "Entries", "OP-UR", "OP-RR", "Frozen", "Fraction")
    return Table("Frozen fraction per layer", columns, rows)


def _freezing_table(freezing: Mapping[str, Any]) -> Table:
    names = {
        "entries": "Trainable entries",
        "frozen": "Frozen entries",
        "changed": "Frozen entries that changed",
        "sha256_before": "SHA-256 of the frozen entries before",
        "sha256_after": "SHA-256 of the frozen entries after",
    }
    rows = tuple((title, _cell(freezing.get(key))) for key, title in names.items())
    note = "Frozen entries must be bit-identical before and after: 0 changed, equal digests."
    return Table("Freezing proof", ("", "Value"), rows, note)


def _made_with_table(made_with: Mapping[str, Any]) -> Table:
    rows = tuple((key, _cell(value)) for key, value in flatten(made_with))
    return Table("Made with", ("", "Value"), rows)


def _sample_table(samples: Sequence[Mapping[str, Any]]) -> Table:
    """Return the first generations of each side; no rows unless the run kept its texts."""
    with_text = [s for s in samples if "generation" in s]
    before = {_sample_id(s): s["generation"] for s in with_text if s["model"] == "vanilla"}
    rows: list[tuple[str, ...]] = []
    for sample in with_text:
        place = (sample["domain"], sample["side"])
        full = sum(row[:2] == place for row in rows) >= SAMPLES_PER_SIDE
        if sample["model"] == "unlearned" and not full:
            texts = (sample.get("prompt"), sample.get("completion"), before.get(_sample_id(sample)))
            rows.append((*place, *map(_cell, texts), _cell(sample["generation"])))
    columns = ("Domain", "Side", "Prompt", "Completion", "Vanilla says", "Unlearned says")
    return Table("Samples", columns, tuple(rows))


def _sample_id(sample: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sample.get(key) for key in ("domain", "side", "part", "row", "key"))


def _cell(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
