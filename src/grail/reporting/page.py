"""One run as a page and as Markdown: self-contained, and the same bytes for the same run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from grail.errors import InputError
from grail.files import write_text
from grail.reporting.audit_tables import audit_markdown, audit_section, read_audit
from grail.reporting.tables import (
    MISSING,
    Pair,
    Table,
    escaped,
    finite,
    markdown,
    overlap_table,
    success_table,
    successes,
    text_table,
)
from grail.reporting.verdict import WARNING, verdict
from grail.results import Results, read_results

LEFT, RIGHT, TOP, BOTTOM = 58.0, 704.0, 14.0, 202.0  # of page.html.jinja's 720 x 240 drawings
POINTS = 500
SAMPLES_PER_SIDE = 2
TERMS = {"unlearn": "unlearn/nll", "retain": "retain/nll"}


@dataclass(frozen=True)
class Chart:
    """A drawing in SVG units: where the horizontal rules lie, and the marks between them."""

    rules: list[tuple[float, str]]
    first: str
    last: str
    lines: dict[str, str]
    bars: list[tuple[float, float, float, float, str]]
    caption: str = ""


def report(folder: Path) -> tuple[Path, Path]:
    """Write the report of a run directory from the files in it alone; return both paths.

    Raises:
        InputError: if the run has no results yet, or lacks a file.
    """
    results = read_results(folder / "results.json")
    try:
        run = {
            "config": yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")),
            "localization": json.loads((folder / "localization.json").read_text(encoding="utf-8")),
            "training": _lines(folder / "train.jsonl"),
            "samples": _lines(folder / "samples.jsonl"),
            "audit": read_audit(folder),
        }
    except (OSError, ValueError, yaml.YAMLError) as error:
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
            train.jsonl), "samples" (lines of samples.jsonl), "audit" (audit.json); empty ones are
            left out.

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
        "audit": audit_section(run.get("audit")),
        "success": success_table(results),
        "bars": _success_bars(results),
        "text": text_table(results),
        "overlap": overlap_table(localization),
        "layers": _layer_table(localization.get("layers") or {}),
        "layer_chart": _layer_chart(localization.get("layers") or {}),
        "curve": _curve(run.get("training") or []),
        "freezing": _freezing_table(results.freezing),
        "samples": _sample_table(run.get("samples") or []),
        "settings": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "made_with": _made_with_table(run["config"].get("made_with") or {}),
        "warning": WARNING,
    }


def _as_html(content: Mapping[str, Any]) -> str:
    source = resources.files("grail.reporting").joinpath("page.html.jinja")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source.read_text(encoding="utf-8")).render(content)


def _as_markdown(content: Mapping[str, Any]) -> str:
    """Return the same tables as Markdown; settings are indented, so nothing in them is markup."""
    sentences = "".join(f"- {escaped(sentence)}\n" for sentence in content["verdict"])
    head = f"# grail report: {escaped(content['name'])}\n\n{escaped(content['about'])}\n"
    names = ("success", "text", "overlap", "layers", "freezing", "samples", "made_with")
    tables = [content[name] for name in names]
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
    flat = dict(_flat(config))
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


def _layer_chart(layers: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """Draw one bar per layer, in percent of its entries."""
    if not layers:
        return None
    values = {name: 100.0 * layer["frozen_fraction"] for name, layer in layers.items()}
    top, rules = _rules(max(values.values()), "%")
    slot = (RIGHT - LEFT) / len(values)
    width = min(0.78 * slot, 48.0)
    bars = []
    for i, (name, value) in enumerate(values.items()):
        x, y = LEFT + slot * (i + 0.5) - width / 2, _y(value, top)
        size = (round(x, 2), y, round(width, 2), round(BOTTOM - y, 1))
        bars.append((*size, f"{name}: {value:.1f}%"))
    prefix, first, last = _ends(list(values))
    caption = f" Names start with {prefix}" if prefix else ""
    return Chart(rules, first, last, {}, bars, caption)


def _ends(names: Sequence[str]) -> tuple[str, str, str]:
    """Return what all dotted names start with, and the rest of the first and of the last."""
    if len(names) == 1:
        return "", names[0], ""
    heads = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda words: len(set(words)) == 1, heads)
    prefix = "".join(f"{words[0]}." for words in shared)
    return prefix, names[0][len(prefix) :], names[-1][len(prefix) :]


def _curve(training: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Draw the NLL (nats/token) of both sides at each step; None where no NLL was logged."""
    stride = math.ceil(len(training) / POINTS) or 1
    points = {side: _points(training[::stride], term) for side, term in TERMS.items()}
    points = {side: found for side, found in points.items() if found}
    if not points:
        return None
    values = [value for found in points.values() for _, value in found]
    steps = [step for found in points.values() for step, _ in found]
    low, high = min(steps), max(steps)
    top, rules = _rules(max(values), "")
    lines = {}
    for side, found in points.items():
        places = [f"{_x(s, low, high)},{_y(v, top)}" for s, v in found]
        lines[side] = " ".join(places if len(places) > 1 else places * 2)
    caption = f" Every {stride}th step is drawn." if stride > 1 else ""
    if "ascending" in training[-1]:
        caption += f" Rows still ascending at the last step: {training[-1]['ascending']}."
    return Chart(rules, f"step {low}", f"step {high}" if high > low else "", lines, [], caption)


def _points(training: Sequence[Mapping[str, Any]], term: str) -> list[tuple[int, float]]:
    pairs = [(line["step"], line.get("terms", {}).get(term)) for line in training]
    return [(step, float(value)) for step, value in pairs if finite(value)]


def _rules(largest: float, unit: str) -> tuple[float, list[tuple[float, str]]]:
    """Return the top of the axis and its rules at round numbers, from 0 to at least ``largest``."""
    size = 10.0 ** math.floor(math.log10(largest / 4)) if largest > 0 else 0.25
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f * 4 >= largest)
    count = max(1, math.ceil(largest / step - 1e-9))
    top = count * step
    return top, [(_y(i * step, top), f"{i * step:g}{unit}") for i in range(count + 1)]


def _x(step: int, low: int, high: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * (step - low) / max(high - low, 1), 1)


def _y(value: float, top: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * min(max(value, 0.0), top) / top, 1)


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
    rows = tuple((key, _cell(value)) for key, value in _flat(made_with))
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


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _cell(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
