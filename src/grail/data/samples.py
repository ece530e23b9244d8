"""Rows of text from files, the Hub or the embedded set, as samples; knows nothing of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grail.config.run import Config, Data
from grail.data.readers import GENERAL, Place, read_rows
from grail.errors import InputError, collecting, did_you_mean
from grail.files import digest

Source = tuple[str, str | None, Place]  # configuration key, where the rows are, place
Turns = tuple[tuple[str, str], ...]  # (role, text), oldest first
PAIRS = (("prompt", "completion"), ("question", "answer"), ("text", "labels"))
KNOWN = {key for pair in PAIRS for key in pair} | {"messages"}
ROLES = ("system", "user", "assistant")
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


def _load_all(sources: list[Source], limits: Data) -> list[Sample]:
    samples, problems = list[Sample](), list[str]()
    for key, source, place in sources:
        with collecting(problems, f"{key}: "):
            limit = (place[2] == "val" and limits.max_val_rows) or limits.max_rows
            samples += _load(source, place)[:limit] if source else []
    if problems:
        raise InputError(problems)
    return samples


def _load(source: str, place: Place) -> list[Sample]:
    """Read and check one source; the first malformed rows are named together."""
    if not (rows := read_rows(source, place)):
        raise InputError(f"{source} is empty. A side needs at least one row of {LAYOUTS}.")
    samples, problems = list[Sample](), list[str]()
    for number, (where, row) in enumerate(rows):
        with collecting(problems, f"{source} {where}: "):
            *context, (_, prompt), (_, completion) = _turns(row)
            others = paraphrases_of(row)
            samples.append(Sample(*place, number, prompt, completion, tuple(context), others))
    if problems:
        more = len(problems) - SHOWN
        rest = [f"{source}: and {more} more malformed rows."] if more > 0 else []
        raise InputError([*problems[:SHOWN], *rest, f"{source}: allowed: {LAYOUTS}."])
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


@dataclass(frozen=True)
class Text:
    """A sample without case and spacing: what is asked (with earlier turns) and the answer."""

    key: str
    part: str
    prompt: str
    completion: str

    @property
    def row(self) -> tuple[str, str]:
        """Return what makes two samples the same row."""
        return self.prompt, self.completion


def normalised(sample: Sample) -> Text:
    """Return what is compared of a sample; its system turn is not."""
    turns = [text for role, text in sample.context if role != "system"]
    prompt = " ".join([*turns, sample.prompt])
    return Text(sample.key, sample.part, _plain(prompt), _plain(sample.completion))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


KEY = "paraphrases"


def paraphrases_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's other prompts; none where it has no such key, or null.

    A text, as all cells of a CSV file are, holds the list as JSON; an empty one holds none.

    Raises:
        InputError: if it is anything but a list of texts. The texts are not repeated.
    """
    given = row.get(KEY)
    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InputError(f"{KEY} must be a list of prompts, as JSON in a CSV file.") from error
    if not given:
        return ()
    if not isinstance(given, list):
        raise InputError(f"{KEY} must be a list of prompts, got {type(given).__name__}.")
    for number, prompt in enumerate(given):
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"{KEY}[{number}] must be a prompt. Give text, or leave it out.")
    return tuple(given)
