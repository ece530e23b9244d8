"""Read rows from files, the Hub or the embedded set, unchecked; knows nothing of samples."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from grail.data import embedded
from grail.errors import InputError, did_you_mean

Raw = tuple[str, Any]  # "line 7", and the row there or, where it is not readable, an InputError

_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_SOURCES = "*.jsonl, *.json, *.csv, *.parquet, hub:OWNER/NAME[:CONFIG[:SPLIT]], embedded"


def read_rows(source: str, place: tuple[str, str, str] | None = None) -> list[Raw]:
    """Read a source into (where, row) pairs, unchecked.

    Args:
        source: A file, ``hub:...`` or ``embedded``.
        place: Which rows of ``embedded``: (domain, side, part); None or domain "general": the
            general ones.

    Raises:
        InputError: if the source as a whole cannot be read.
    """
    if source == "embedded":
        if place is None or place[0] == "general":
            return _numbered(embedded.general_rows())
        return _numbered(embedded.rows(*place))
    if source.startswith("hub:"):
        return _numbered(_hub(source))
    inner = re.fullmatch(r"(.+\.json)#(.+)", source, re.IGNORECASE | re.DOTALL)
    path = _file(inner[1] if inner else source)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _numbered(_json(path, inner[2] if inner else ""))
    return {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[suffix](path)


def _numbered(rows: list[Any]) -> list[Raw]:
    return [(f"row {number} (from 0)", row) for number, row in enumerate(rows)]


def _file(source: str) -> Path:
    """Check that the source is a file of a known kind."""
    path = Path(source)
    if os.path.isdir(source):  # unlike Path.is_dir, never an error
        raise InputError(f"{source} is a folder. Give one file: {_SOURCES}.")
    if path.suffix.lower() not in _SUFFIXES:
        hint = did_you_mean(path.name, ["embedded"]) or did_you_mean(path.suffix, _SUFFIXES)
        raise InputError(f"{source} is of no known kind.{hint} Allowed: {_SOURCES}.")
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist. Correct the path; allowed: {_SOURCES}.")
    return path


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: not UTF-8. Save the file as UTF-8.") from error


def _jsonl(path: Path) -> list[Raw]:
    """Read one JSON value a line; only a line feed ends a line (U+2028 is legal inside text)."""
    rows: list[Raw] = []
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                row = InputError(f"not valid JSON ({getattr(error, 'msg', error)}).")
            rows.append((f"line {number}", row))
    return rows


def _json(path: Path, inner: str) -> list[Any]:
    """Read the list that the file is, or the one at the dotted key ``inner``."""
    try:
        value = json.loads(_decoded(path))
    except (ValueError, RecursionError) as error:
        where, reason = f"{path} line {getattr(error, 'lineno', 1)}", getattr(error, "msg", error)
        hint = " If it holds one object a line, name it *.jsonl." if reason == "Extra data" else ""
        raise InputError(f"{where}: not valid JSON ({reason}).{hint}") from error
    name, steps = str(path), inner.split(".") if inner else []
    while isinstance(value, dict):
        keys = ", ".join(str(key)[:40] for key in value)
        if not steps or steps[0] not in value:
            problem = f"no key '{steps[0]}'" if steps else "not a list of rows"
            raise InputError(f"{name}: {problem}. Pick a list by FILE.json#KEY.KEY; here: {keys}.")
        name += ("." if "#" in name[len(str(path)) :] else "#") + steps[0]
        value = value[steps.pop(0)]
    if steps or not isinstance(value, list):
        raise InputError(f"{name} must be a list of rows, got {type(value).__name__}.")
    return value


def _csv(path: Path) -> list[Raw]:
    """Read rows under a header; a row is named by the line on which it starts."""
    rows, header = list[Raw](), list[str]()
    reader, line = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True), 1
    try:
        for cells in reader:
            if header and len(cells) == len(header):
                rows.append((f"line {line}", dict(zip(header, cells, strict=True))))
            elif header and cells:
                problem = f"{len(cells)} cells under {len(header)} names. Quote text with commas."
                rows.append((f"line {line}", InputError(problem)))
            header, line = header or cells, reader.line_num + 1
    except csv.Error as error:
        rows.append((f"line {line}", InputError(f"not valid CSV ({error}).")))
    return rows


def _parquet(path: Path) -> list[Raw]:
    import pyarrow.parquet as parquet

    try:
        return _numbered(parquet.read_table(path).to_pylist())
    except Exception as error:  # pyarrow raises many kinds, some of them plain Exceptions
        raise InputError(f"{path} is not a readable Parquet file ({error}).") from error


def _hub(source: str) -> list[Any]:
    name, config, split, *_ = [*source.removeprefix("hub:").split(":", 2), "", ""]
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise InputError(f"{source} is not a Hub dataset. Write hub:OWNER/NAME[:CONFIG[:SPLIT]].")
    try:
        import datasets

        return list(datasets.load_dataset(name, config or None, split=split or "train"))
    except Exception as error:  # network, cache, names, formats: no common base class
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{source}: the Hub dataset {name} could not be loaded ({reason}). It needs a network, "
            f"or a copy in the Hugging Face cache. Allowed instead: {_SOURCES}."
        ) from error
