"""One run as a page and as Markdown: self-contained, and the same bytes for the same run."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from grail.config.file import read
from grail.config.merge import flatten
from grail.errors import InputError, reading
from grail.files import dump_yaml, read_json, write_text
from grail.reporting.audit.tables import audit_markdown, audit_section, read_audit
from grail.reporting.html import render_page
from grail.reporting.run.charts import curve, layer_chart, looks
from grail.reporting.run.tables import (
    general_table,
    layer_table,
    measured_tables,
    overlap_table,
    read_general,
    words_table,
)
from grail.reporting.tables import MISSING, Table, escaped, finite, markdown, successes
from grail.reporting.verdict import OUTCOMES, verdict
from grail.results import Results, read_results

_SAMPLES_PER_SIDE = 2
_NO_CURVE = "Delete it: the report then goes without its curve."
_NEEDED = ("config.yaml", "localization.json", "results.json")


def report(folder: Path) -> tuple[Path, Path]:
    """Write the report of a run directory from the files in it alone; return both paths.

    Raises:
        InputError: if the run is not finished, or a file of it is damaged.
    """
    missing = [name for name in _NEEDED if not (folder / name).exists()]
    results = None if "results.json" in missing else read_results(folder / "results.json")
    if missing or results is None:
        raise InputError(
            f"{folder} is not a finished run: it has no {', '.join(missing)}. "
            f"Finish it first: grail run {folder}"
        )
    run = {}
    for key, (name, read_file, _) in _PARTS.items():
        with _told(folder, key):
            run[key] = read_file(folder / name)
    return write_report(folder, results, run)


def _told(folder: Path, key: str) -> AbstractContextManager[None]:
    """Name the file of a part in whatever error it causes, and say what to do."""
    advice = _NO_CURVE if key in ("training", "steps") else "Delete it and run again."
    return reading(folder / _PARTS[key][0], advice)


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_report(folder: Path, results: Results, run: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html`` from the same sections; return both paths.

    ``run`` has the parts of a run by their names in ``_PARTS``, "config" with its made_with; empty
    ones are left out. An InputError names the file whose content has another shape.
    """
    shown: dict[str, Any] = {}
    for key, (_, _, show) in _PARTS.items():
        with _told(folder, key):
            shown |= show(run.get(key))
    with reading(folder / "results.json"):
        measured, found = measured_tables(results), verdict(results, run.get("audit"))
    tables = {
        **measured,
        **{name: shown[name] for name in ("general", "overlap", "layers")},
        "freezing": _freezing_table(results.freezing),
        **{name: shown[name] for name in ("samples", "made_with")},
        "words": words_table(),
    }
    content = shown | {
        "outcome": OUTCOMES[found.outcome],
        "headline": found.headline,
        "checks": found.table,
        "advice": found.advice,
        "tables": {name: table for name, table in tables.items() if table.rows or table.note},
        "bars": _success_bars(results),
    }
    page = render_page("run", content)
    write_text(folder / "report.md", _as_markdown(content))
    write_text(folder / "report.html", page)
    return folder / "report.md", folder / "report.html"


def _as_markdown(content: Mapping[str, Any]) -> str:
    """Return the sections as Markdown; settings are indented, so nothing in them is markup."""
    settings = "".join(f"    {line}\n" for line in content["settings"].splitlines())
    return "\n".join(
        [
            f"# grail report: {escaped(content['name'])}\n\n{escaped(content['about'])}\n",
            f"## {content['outcome'][1]}: {escaped(content['headline'])}\n",
            markdown(content["checks"]),
            f"Next: {escaped(content['advice'])}\n",
            *filter(None, [content["audit_markdown"]]),
            *map(markdown, content["tables"].values()),
            f"## Settings\n\n{settings}",
            f"## Replay\n\n    grail run {content['name']}/config.yaml\n",
        ]
    )


def _about(config: Mapping[str, Any]) -> str:
    """Name model, localizer, objective and seed in one line."""
    keys = {
        "model": "model.name",
        "localizer": "localization.method",
        "objective": "unlearning.objective",
        "seed": "seed",
    }
    flat = dict(flatten(config))
    return ", ".join(f"{word} {flat[key]}" for word, key in keys.items() if key in flat)


def _success_bars(results: Results) -> list[list[list[tuple[str, float]]]]:
    """Return the bars (model, percent) per row of the success table and column US, RS, HS, Avg."""
    models, columns = ("vanilla", "unlearned"), ("US", "RS", "HS", "Avg")
    return [
        [
            [
                (model, round(min(max(value, 0.0), 100.0), 1))
                for model, value in zip(models, row.pairs.get(column, ()), strict=False)
                if finite(value)
            ]
            for column in columns
        ]
        for row in successes(results)
    ]


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


def _sample_table(samples: Sequence[Mapping[str, Any]]) -> Table:
    """Return the first generations of each side; no rows unless the run kept its texts."""
    with_text = [s for s in samples if "generation" in s]
    before = {_sample_id(s): s["generation"] for s in with_text if s["model"] == "vanilla"}
    rows: list[tuple[str, ...]] = []
    for sample in with_text:
        side = (sample["domain"], sample["side"])
        full = sum(row[:2] == side for row in rows) >= _SAMPLES_PER_SIDE
        if sample["model"] == "unlearned" and not full:
            texts = (sample.get("prompt"), sample.get("completion"), before.get(_sample_id(sample)))
            rows.append((*side, *map(_cell, texts), _cell(sample["generation"])))
    columns = ("Domain", "Side", "Prompt", "Completion", "Before", "After")
    return Table("Samples", columns, tuple(rows))


def _sample_id(sample: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sample.get(key) for key in ("domain", "side", "part", "row", "key"))


def _cell(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _localization(found: Mapping[str, Any] | None) -> dict[str, Any]:
    layers = (found or {}).get("layers") or {}
    tables = {"overlap": overlap_table(found or {}), "layers": layer_table(layers)}
    return {**tables, "layer_chart": layer_chart(layers)}


def _audit(found: Mapping[str, Any] | None) -> dict[str, Any]:
    section = audit_section(found)
    return {"audit": section, "audit_markdown": audit_markdown(section)}


def _config(found: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in found.items() if key != "made_with"}
    versions = flatten(found.get("made_with") or {})
    made_with = tuple((key, _cell(value)) for key, value in versions)
    return {
        "name": str(config.get("output", "RUN")),
        "about": _about(config),
        "made_with": Table("Made with", ("", "Value"), made_with),
        "settings": dump_yaml(config),
    }


_PARTS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Any], dict[str, Any]]]] = {
    "localization": ("localization.json", _json, _localization),
    "training": ("train.jsonl", _read_lines, lambda lines: {"curve": curve(lines or [])}),
    "steps": ("evaluation/steps.json", _json, lambda seen: {"looks": looks(seen or {})}),
    "samples": ("samples.jsonl", _read_lines, lambda own: {"samples": _sample_table(own or [])}),
    "general": (
        "general.json",
        lambda file: read_general(file.parent),
        lambda found: {"general": general_table(found or {})},
    ),
    "audit": ("audit.json", lambda file: read_audit(file.parent), _audit),
    "config": ("config.yaml", lambda file: read(file)[1], _config),
}
"""What a report shows of a run: the file, how it is read, and the sections that show it."""
