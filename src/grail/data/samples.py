"""Samples: rows of text, checked and named; knows nothing of tokens."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar
from unicodedata import normalize

from grail.config.run import Config, Data
from grail.config.values import EMBEDDED
from grail.data.layouts import LAYOUTS, Turns, paraphrases_of, turns_of, with_keys
from grail.data.readers import read_rows
from grail.data.tables import Raw, separator
from grail.errors import InputError, collecting
from grail.files import digest

_SHOWN = 5  # malformed rows listed one by one
_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


class Place(NamedTuple):
    """Where rows belong; ``str(place)`` is its name in files and logs."""

    domain: str
    side: str
    part: str

    def __str__(self) -> str:
        return ".".join(self)


GENERAL = Place("general", "general", "train")
CHECK = "check"
"""The side of rows that are only measured; their part is val."""


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


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> dict[_K, list[_T]]:
    """Return items by their key, both in the order of first appearance."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def load_samples(config: Config) -> list[Sample]:
    """Read all domains in the order of the configuration, both sides and all parts, then checks.

    Of each (domain, side, part) the first ``data.max_rows`` rows are returned; all are checked.

    Raises:
        InputError: one line per problem over all sources, each with its configuration key.
    """
    sources = {f"domains.{place}": (place, source) for place, source in _sources(config).items()}
    for name, checked in config.check.items():
        sources[f"check.{name}.rows"] = Place(name, CHECK, "val"), checked.rows
    return _load_all(sources, config.data)


def load_general(config: Config) -> list[Sample]:
    """Read the general text, at most ``data.max_rows`` rows; every second one is held out (val)."""
    samples = _load_all({"general.train": (GENERAL, config.general.train)}, config.data)
    return [replace(sample, part="val") if sample.row % 2 else sample for sample in samples]


def remarks(config: Config) -> list[str]:
    """Say which CSV files have cells that something else than commas parts, once for each mark."""
    found: dict[str, list[str]] = {}
    for source in sources(config):
        if (mark := separator(source)) not in ("", ","):
            found.setdefault("tabs" if mark.isspace() else repr(mark), []).append(source)
    return [
        f"{', '.join(files)}: the cells are parted by {mark}, not commas."
        for mark, files in found.items()
    ]


def sources(config: Config) -> list[str]:
    """Return where all rows of a run come from, those that it only measures too, sorted."""
    given = [*_sources(config).values(), *(c.rows for c in config.check.values())]
    return sorted({source for source in (*given, config.general.train) if source})


def _sources(config: Config) -> dict[Place, str | None]:
    return {
        Place(domain, side, part): source
        for domain, sides in config.domains.items()
        for side, files in sides.model_dump().items()
        for part, source in files.items()
    }


def texts_of(sample: Sample) -> list[Any]:
    """Return what a row is hashed by: ``[[[role, text], ...], prompt, completion]``."""
    return [[list(turn) for turn in sample.context], sample.prompt, sample.completion]


def data_digest(samples: Sequence[Sample]) -> dict[str, str]:
    """Return the SHA-256 of text and order of each ``domain.side.part``, whatever the format."""
    places = grouped(samples, lambda sample: str(sample.place))
    return {name: digest([texts_of(s) for s in rows]) for name, rows in places.items()}


def _load_all(sources: dict[str, tuple[Place, str | None]], limits: Data) -> list[Sample]:
    """Read all sources: configuration key -> (place, source)."""
    samples, problems = list[Sample](), list[str]()
    for key, (place, source) in sources.items():
        with collecting(problems, f"{key}: "):
            limit = (place.part == "val" and limits.max_val_rows) or limits.max_rows
            columns = {} if source == EMBEDDED else {str(k): n for k, n in limits.columns.items()}
            samples += _load(source, place, columns)[:limit] if source else []
    if problems:
        raise InputError(problems)
    return samples


def _load(source: str, place: Place, columns: Mapping[str, str]) -> list[Sample]:
    return samples_from(read_rows(source, place), place, source, columns)


def samples_from(
    rows: Sequence[Raw], place: Place, source: str, columns: Mapping[str, str] | None = None
) -> list[Sample]:
    """Check rows of any layout, each with where it stands; ``source`` is their name in messages.

    ``columns`` is key of a layout -> the source's own name for it.

    Raises:
        InputError: if there are none, or listing the first malformed ones, without their text.
    """
    if not rows:
        raise InputError(f"{source} is empty. A side needs at least one row of {LAYOUTS}.")
    samples, problems = list[Sample](), list[str]()
    for number, (where, row) in enumerate(rows):
        with collecting(problems, f"{source} {where}: "):
            row = with_keys(row, columns or {})
            *context, (_, prompt), (_, completion) = turns_of(row)
            paraphrases = paraphrases_of(row)
            samples.append(Sample(*place, number, prompt, completion, tuple(context), paraphrases))
    if problems:
        more = len(problems) - _SHOWN
        rest = [f"{source}: and {more} more malformed row{'s' * (more != 1)}."] if more > 0 else []
        raise InputError([*problems[:_SHOWN], *rest, f"{source}: allowed: {LAYOUTS}."])
    return samples


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
