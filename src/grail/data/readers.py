"""Read rows from files, the Hub or the embedded set, unchecked; knows nothing of samples."""

import json
import os
import re
from pathlib import Path
from typing import Any

from grail.data import embedded
from grail.data.tables import Raw, csv_rows, decoded, sheet_rows
from grail.errors import InputError, did_you_mean

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
_SOURCES = ", ".join(f"*{suffix}" for suffix in _SUFFIXES)
_SOURCES += ", hub:OWNER/NAME[:CONFIG[:SPLIT]], embedded"


def read_rows(source: str, place: tuple[str, str, str] | None = None) -> list[Raw]:
    """Read a source (a file, ``hub:...`` or ``embedded``) into (where, row) pairs, unchecked.

    ``place`` is which rows of ``embedded``: (domain, side, part); None or domain "general": the
    general ones. InputError if the source as a whole cannot be read.
    """
    if source == "embedded":
        if place is None or place[0] == "general":
            return _numbered(embedded.general_rows())
        return _numbered(embedded.rows(*place))
    if source.startswith("hub:"):
        return _numbered(_hub(source))
    inner = re.fullmatch(r"(.+\.(?:json|xlsx))#(.+)", source, re.IGNORECASE | re.DOTALL)
    path = _file(inner[1] if inner else source)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _numbered(_json(path, inner[2] if inner else ""))
    if suffix == ".xlsx":
        return sheet_rows(path, inner[2] if inner else "")
    read = {".jsonl": _jsonl, ".csv": csv_rows, ".tsv": csv_rows, ".parquet": _parquet}
    return read[suffix](path)


def _numbered(rows: list[Any]) -> list[Raw]:
    return [(f"row {number} (from 0)", row) for number, row in enumerate(rows)]


def _file(source: str) -> Path:
    """Check that the source is a file of a known kind."""
    source = os.path.expanduser(source)
    path = Path(source)
    if os.path.isdir(source):  # unlike Path.is_dir, never an error
        raise InputError(f"{source} is a folder. Give one file: {_SOURCES}.")
    if path.suffix.lower() not in _SUFFIXES:
        hint = did_you_mean(path.name, ["embedded"]) or did_you_mean(path.suffix, _SUFFIXES)
        raise InputError(f"{source} is of no known kind.{hint} Allowed: {_SOURCES}.")
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist. Correct the path; allowed: {_SOURCES}.")
    return path


def _jsonl(path: Path) -> list[Raw]:
    """Read one JSON value a line; only a line feed ends a line (U+2028 is legal inside text)."""
    rows: list[Raw] = []
    for number, line in enumerate(decoded(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                row = InputError(f"not valid JSON ({getattr(error, 'msg', error)}).")
            rows.append((f"line {number}", _doubled(row) or row))
    return rows


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """Make an object; one that gives a key twice becomes an error, which ``_doubled`` finds."""
    made = dict(pairs)
    return made if len(made) == len(pairs) else _twice("key", [key for key, _ in pairs])


def _twice(what: str, names: list[str]) -> InputError:
    name = next(name for number, name in enumerate(names) if name in names[:number])
    return InputError(f"the {what} '{name[:40]}' is given twice. Keep one of them.")


def _doubled(row: Any) -> InputError | None:
    """Return the error of the first object in a row, at any depth, that gives a key twice."""
    found = [row]
    while found:
        value = found.pop()
        if isinstance(value, InputError):
            return value
        found += (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
    return None


def _json(path: Path, inner: str) -> list[Any]:
    """Read the list that the file is, or the one at the dotted key ``inner``."""
    try:
        value = json.loads(decoded(path), object_pairs_hook=_object)
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
        others, value = value, value.pop(steps.pop(0))
        if problem := _doubled(others):
            raise InputError(f"{path}: {problem}")
    if isinstance(value, InputError):
        raise InputError(f"{name}: {value}")
    if steps or not isinstance(value, list):
        raise InputError(f"{name} must be a list of rows, got {type(value).__name__}.")
    return [_doubled(row) or row for row in value]


def _parquet(path: Path) -> list[Raw]:
    import pyarrow.parquet as parquet

    try:
        names = parquet.read_schema(path).names
        if len(set(names)) == len(names):
            return _numbered(parquet.read_table(path).to_pylist())
    except Exception as error:  # pyarrow raises many kinds, some of them plain Exceptions
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a readable Parquet file ({reason}).") from error
    raise InputError(f"{path}: {_twice('column', names)}")


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
