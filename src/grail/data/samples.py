"""Samples: rows of text, checked and named; knows nothing of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from unicodedata import normalize

from grail.config.run import Config, Data
from grail.data.readers import Raw, read_rows, separator
from grail.errors import InputError, collecting, did_you_mean
from grail.files import digest

Turns = tuple[tuple[str, str], ...]  # (role, text), oldest first
_PAIRS = (("prompt", "completion"), ("question", "answer"), ("text", "labels"))
_KEYS = {key for pair in _PAIRS for key in pair} | {"messages"}
_ROLES = ("system", "user", "assistant")
_LAYOUTS = (
    '{"prompt", "completion"}, {"question", "answer"}, {"text", "labels"}, or '
    '{"messages": [{"role", "content"}, ...]} ending in a user and an assistant turn'
)
_SHOWN = 5  # malformed rows listed one by one
_PARAPHRASES = "paraphrases"


class Place(NamedTuple):
    """Where rows belong; ``str(place)`` is its name in files and logs."""

    domain: str
    side: str
    part: str

    def __str__(self) -> str:
        return ".".join(self)


GENERAL = Place("general", "general", "train")


@dataclass(frozen=True)
class Sample:
    """One row: a prompt, its completion, and where they come from.

    ``row`` is the position in the source, from 0; ``prompt`` is the last user turn and ``context``
    the (role, text) turns before it. All text is kept as it is in the source. ``paraphrases`` are
    other prompts for the same completion; only the audit uses them.
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
    def place(self) -> Place:
        """The domain, side and part of the sample."""
        return Place(self.domain, self.side, self.part)

    @property
    def key(self) -> str:
        """The sample's name in files and logs: ``domain.side.part.row``."""
        return f"{self.place}.{self.row}"


def load_samples(config: Config) -> list[Sample]:
    """Read all domains in the order of the configuration: both sides, all their parts.

    Of each (domain, side, part) the first ``data.max_rows`` rows are returned; all are checked.

    Raises:
        InputError: one line per problem over all sources, each with its configuration key.
    """
    sources = {f"domains.{place}": (place, source) for place, source in _sources(config).items()}
    return _load_all(sources, config.data)


def load_general(config: Config) -> list[Sample]:
    """Read the general text, at most ``data.max_rows`` rows; every second one is held out (val).

    Raises:
        InputError: one line per problem, each with the configuration key.
    """
    samples = _load_all({"general.train": (GENERAL, config.general.train)}, config.data)
    return [replace(sample, part="val") if sample.row % 2 else sample for sample in samples]


def remarks(config: Config) -> list[str]:
    """Say of each CSV file whose cells are parted by something else than commas what it is."""
    sources = {source for source in (*_sources(config).values(), config.general.train) if source}
    marks = {source: separator(source) for source in sorted(sources)}
    return [
        f"{source}: its cells are parted by {'tabs' if mark.isspace() else repr(mark)}, not commas."
        for source, mark in marks.items()
        if mark not in ("", ",")
    ]


def _sources(config: Config) -> dict[Place, str | None]:
    return {
        Place(domain, side, part): source
        for domain, sides in config.domains.items()
        for side, files in sides.model_dump().items()
        for part, source in files.items()
    }


def data_digest(samples: Sequence[Sample]) -> dict[str, str]:
    """Return the SHA-256 of text and order of each ``domain.side.part``, whatever the format."""
    texts: dict[str, list[Any]] = {}
    for sample in samples:
        turns = [sample.context, sample.prompt, sample.completion]
        texts.setdefault(str(sample.place), []).append(turns)
    return {name: digest(rows) for name, rows in texts.items()}


def _load_all(sources: dict[str, tuple[Place, str | None]], limits: Data) -> list[Sample]:
    """Read all sources: configuration key -> (place, source)."""
    samples, problems = list[Sample](), list[str]()
    for key, (place, source) in sources.items():
        with collecting(problems, f"{key}: "):
            limit = (place.part == "val" and limits.max_val_rows) or limits.max_rows
            samples += _load(source, place)[:limit] if source else []
    if problems:
        raise InputError(problems)
    return samples


def _load(source: str, place: Place) -> list[Sample]:
    return samples_from(read_rows(source, place), place, source)


def samples_from(rows: Sequence[Raw], place: Place, source: str) -> list[Sample]:
    """Check rows of any layout; ``source`` is their name in messages.

    Raises:
        InputError: if there are none, or listing the first malformed ones, without their text.
    """
    if not rows:
        raise InputError(f"{source} is empty. A side needs at least one row of {_LAYOUTS}.")
    samples, problems = list[Sample](), list[str]()
    for number, (where, row) in enumerate(rows):
        with collecting(problems, f"{source} {where}: "):
            *context, (_, prompt), (_, completion) = _turns(row)
            paraphrases = paraphrases_of(row)
            samples.append(Sample(*place, number, prompt, completion, tuple(context), paraphrases))
    if problems:
        more = len(problems) - _SHOWN
        rest = [f"{source}: and {more} more malformed rows."] if more > 0 else []
        raise InputError([*problems[:_SHOWN], *rest, f"{source}: allowed: {_LAYOUTS}."])
    return samples


def _turns(row: Any) -> Turns:
    """Return the turns of a row in any layout. Errors never repeat its text: it may be private."""
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"a row must be an object with named values, got {type(row).__name__}.")
    for prompt, completion in _PAIRS:
        if prompt in row and completion in row:
            answer = text_of(row[completion], completion, empty=False)
            return ("user", text_of(row[prompt], prompt)), ("assistant", answer)
    if "messages" in row:
        return _chat(row["messages"])
    keys = sorted(_KEYS & set(row))  # another key may be private text: a CSV without a header
    near = "".join(sorted({did_you_mean(str(key), _KEYS) for key in set(row) - _KEYS}))
    if others := len(row) - len(keys):
        keys.append(f"{others} others")
    raise InputError(f"no known layout; keys found: {', '.join(keys) or 'none'}.{near}")


def _chat(messages: Any) -> Turns:
    """Check a conversation: known roles, ending in a user and an assistant turn."""
    if not isinstance(messages, list):
        raise InputError(f"messages must be a list of turns, got {type(messages).__name__}.")
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(messages):
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES:
            roles = ", ".join(_ROLES)
            raise InputError(f"messages[{number}] must have content, and a role out of {roles}.")
        turns.append((turn["role"], text_of(turn.get("content"), f"messages[{number}].content")))
    ending = " and ".join(role for role, _ in turns[-2:]) or "no turns"
    if ending != "user and assistant":
        raise InputError(f"messages must end in a user and an assistant turn, got {ending}.")
    text_of(turns[-1][1], f"messages[{len(turns) - 1}].content", empty=False)
    return tuple(turns)


def text_of(value: Any, name: str, empty: bool = True) -> str:
    """Return a value that is text; ``name`` is its key, ``empty`` whether it may be empty.

    Raises:
        InputError: if it is no text, or cannot be written as UTF-8 (half a surrogate pair).
    """
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, got {type(value).__name__}.")
    if not empty and not value.strip():
        raise InputError(f"{name} is empty. Give the answer's text, or drop the row.")
    if re.search("[\ud800-\udfff]", value):
        problem = f"{name} contains half a surrogate pair, which is not text."
        raise InputError(f"{problem} Correct it, or drop the row.")
    return value


@dataclass(frozen=True)
class Text:
    """A sample's prompt (with earlier turns) and completion, composed, without case and spacing."""

    key: str
    part: str
    prompt: str
    completion: str

    @property
    def row(self) -> tuple[str, str]:
        """Prompt and completion: two samples with equal ones are the same row."""
        return self.prompt, self.completion


def normalised(sample: Sample) -> Text:
    """Return the sample's text for comparisons; system turns are left out."""
    turns = [text for role, text in sample.context if role != "system"]
    prompt = " ".join([*turns, sample.prompt])
    return Text(sample.key, sample.part, _plain(prompt), _plain(sample.completion))


def _plain(text: str) -> str:
    return " ".join(normalize("NFC", text).casefold().split())


def paraphrases_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's other prompts; none if the key is missing, null or empty.

    In a CSV file, where every cell is text, the list is written as JSON.

    Raises:
        InputError: if it is anything but a list of texts. The texts are not repeated.
    """
    prompts = row.get(_PARAPHRASES)
    if isinstance(prompts, str) and prompts.strip():
        try:
            prompts = json.loads(prompts)
        except (ValueError, RecursionError) as error:
            problem = "must be a list of prompts, as JSON in a CSV file."
            raise InputError(f"{_PARAPHRASES} {problem}") from error
    if not prompts:
        return ()
    if not isinstance(prompts, list):
        kind = type(prompts).__name__
        raise InputError(f"{_PARAPHRASES} must be a list of prompts, got {kind}.")
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(
                f"{_PARAPHRASES}[{number}] must be a prompt. Give text, or leave it out."
            )
        text_of(prompt, f"{_PARAPHRASES}[{number}]")
    return tuple(prompts)
