"""Rows of text from files, the Hub or the embedded set, as samples; knows nothing of tokens."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grail.config import Config, Data
from grail.data import embedded
from grail.data.paraphrases import paraphrases_of
from grail.errors import InputError, did_you_mean
from grail.files import digest

Place = tuple[str, str, str]  # domain, side, part
Source = tuple[str, str | None, Place]  # configuration key, where the rows are, place
Turns = tuple[tuple[str, str], ...]  # (role, text), oldest first
Raw = tuple[str, Any]  # "line 7", and what was read there: a row, or the InputError instead of it

GENERAL: Place = ("general", "general", "train")
PAIRS = (("prompt", "completion"), ("question", "answer"), ("text", "labels"))
KNOWN = {key for pair in PAIRS for key in pair} | {"messages"}
ROLES = ("system", "user", "assistant")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
SOURCES = "*.jsonl, *.json, *.csv, *.parquet, hub:OWNER/NAME[:CONFIG[:SPLIT]], embedded"
LAYOUTS = (
    '{"prompt", "completion"}, {"question", "answer"}, {"text", "labels"}, or '
    '{"messages": [{"role", "content"}, ...]} ending in a user and an assistant turn'
)
SHOWN = 5  # malformed rows spelled out


@dataclass(frozen=True)
class Sample:
    """One row: what is asked, what must be answered, and where it came from.

    ``row`` is the position in the source, from 0; ``prompt`` is the last user turn and ``context``
    the (role, text) turns before it. All text is kept exactly as it was given. ``paraphrases`` are
    other prompts for the same completion, which only the audit reads.
    """

    domain: str
    side: str
    part: str
    row: int
    prompt: str
    completion: str
    context: Turns = ()
    paraphrases: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name the sample without its text: ``domain.side.part.row``."""
        return f"{self.domain}.{self.side}.{self.part}.{self.row}"


def load_samples(config: Config) -> list[Sample]:
    """Read all domains in the order of the configuration: both sides, all their parts.

    Of each (domain, side, part) the first ``data.max_rows`` rows are returned; all are checked.

    Raises:
        InputError: one line per problem over all sources, each with its configuration key.
    """
    sources: list[Source] = [
        (f"domains.{domain}.{side}.{part}", source, (domain, side, part))
        for domain, sides in config.domains.items()
        for side, files in sides.model_dump().items()
        for part, source in files.items()
    ]
    return _load_all(sources, config.data)


def load_general(config: Config) -> list[Sample]:
    """Read the general text, at most ``data.max_rows`` rows; every second one is held out (val).

    Raises:
        InputError: one line per problem, each with the configuration key.
    """
    rows = _load_all([("general.train", config.general.train, GENERAL)], config.data)
    return [replace(row, part="val") if row.row % 2 else row for row in rows]


def data_digest(samples: Sequence[Sample]) -> dict[str, str]:
    """Return the SHA-256 of text and order of each ``domain.side.part``, whatever the format."""
    texts: dict[str, list[Any]] = {}
    for sample in samples:
        name = f"{sample.domain}.{sample.side}.{sample.part}"
        texts.setdefault(name, []).append([sample.context, sample.prompt, sample.completion])
    return {name: digest(rows) for name, rows in texts.items()}


def read_rows(source: str, place: Place = GENERAL) -> list[Raw]:
    """Read a source into (where, row) pairs, unchecked; only ``embedded`` uses ``place``.

    Raises:
        InputError: if the source as a whole cannot be read.
    """
    if source == "embedded":
        return _numbered(embedded.rows_of(place))
    if source.startswith("hub:"):
        return _numbered(_hub(source))
    inner = re.fullmatch(r"(.+\.json)#(.+)", source, re.IGNORECASE | re.DOTALL)
    path = _file(inner[1] if inner else source)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _numbered(_json(path, inner[2] if inner else ""))
    return {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[suffix](path)


def _load_all(sources: list[Source], limits: Data) -> list[Sample]:
    samples, problems = list[Sample](), list[str]()
    for key, source, place in sources:
        try:
            limit = (place[2] == "val" and limits.max_val_rows) or limits.max_rows
            samples += _load(source, place)[:limit] if source else []
        except InputError as error:
            problems += [f"{key}: {line}" for line in str(error).split("\n")]
    if problems:
        raise InputError("\n".join(problems))
    return samples


def _load(source: str, place: Place) -> list[Sample]:
    """Read and check one source; the first malformed rows are named together."""
    if not (rows := read_rows(source, place)):
        raise InputError(f"{source} is empty. A side needs at least one row of {LAYOUTS}.")
    samples, problems = list[Sample](), list[str]()
    for number, (where, row) in enumerate(rows):
        try:
            *context, (_, prompt), (_, completion) = _turns(row)
            others = paraphrases_of(row)
            samples.append(Sample(*place, number, prompt, completion, tuple(context), others))
        except InputError as error:
            problems.append(f"{source} {where}: {error}")
    if problems:
        more = len(problems) - SHOWN
        rest = [f"{source}: and {more} more malformed rows."] if more > 0 else []
        raise InputError("\n".join(problems[:SHOWN] + rest + [f"{source}: allowed: {LAYOUTS}."]))
    return samples


def _turns(row: Any) -> Turns:
    """Return the turns of a row in any layout. Errors never repeat its text: it may be private."""
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"a row must be an object with named values, got {type(row).__name__}.")
    for prompt, completion in PAIRS:
        if prompt in row and completion in row:
            answer = _text(row[completion], completion, empty=False)
            return ("user", _text(row[prompt], prompt)), ("assistant", answer)
    if "messages" in row:
        return _chat(row["messages"])
    found = sorted(KNOWN & set(row))  # another key may be private text: a CSV without a header
    near = "".join(sorted({did_you_mean(str(key), KNOWN) for key in set(row) - KNOWN}))
    if others := len(row) - len(found):
        found.append(f"{others} others")
    raise InputError(f"no known layout; keys found: {', '.join(found) or 'none'}.{near}")


def _chat(messages: Any) -> Turns:
    """Check a conversation: known roles, ending in a user and an assistant turn."""
    if not isinstance(messages, list):
        raise InputError(f"messages must be a list of turns, got {type(messages).__name__}.")
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(messages):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            roles = ", ".join(ROLES)
            raise InputError(f"messages[{number}] must have content, and a role out of {roles}.")
        turns.append((turn["role"], _text(turn.get("content"), f"messages[{number}].content")))
    ending = " and ".join(role for role, _ in turns[-2:]) or "no turns"
    if ending != "user and assistant":
        raise InputError(f"messages must end in a user and an assistant turn, got {ending}.")
    _text(turns[-1][1], f"messages[{len(turns) - 1}].content", empty=False)
    return tuple(turns)


def _text(value: Any, name: str, empty: bool = True) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, got {type(value).__name__}.")
    if not empty and not value.strip():
        raise InputError(f"{name} is empty. Give the text that is answered, or drop the row.")
    if re.search("[\ud800-\udfff]", value):
        raise InputError(f"{name} holds half a surrogate pair, which is not text.")
    return value


def _numbered(rows: list[Any]) -> list[Raw]:
    return [(f"row {number} (from 0)", row) for number, row in enumerate(rows)]


def _file(source: str) -> Path:
    """Check that the source is a file of a known kind."""
    path = Path(source)
    if os.path.isdir(source):  # unlike Path.is_dir, never an error
        raise InputError(f"{source} is a folder. Give one file: {SOURCES}.")
    if path.suffix.lower() not in SUFFIXES:
        hint = did_you_mean(path.name, ["embedded"]) or did_you_mean(path.suffix, SUFFIXES)
        raise InputError(f"{source} is of no known kind.{hint} Allowed: {SOURCES}.")
    if not os.path.exists(source):
        raise InputError(f"{source} does not exist. Correct the path; allowed: {SOURCES}.")
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
            f"or a copy in the Hugging Face cache. Allowed instead: {SOURCES}."
        ) from error
