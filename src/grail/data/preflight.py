"""Checks on the text of the samples before any work is done; loads nothing, changes nothing.

Findings name samples by key and never repeat their text: it may be personal data.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import product
from math import ceil

from grail.data.heldout import HELD_OUT
from grail.data.samples import CHECK, Sample, Text, normalised
from grail.data.words import words_of

SIMILAR = 0.9  # two prompts are nearly the same from here on (0-1)
_EXAMPLES = 3
_ROUNDING = 1e-9

_Sides = dict[tuple[str, str], list[Text]]  # by (domain, side)
_Bucket = dict[tuple[int, int], list[str]]  # prompts by (rank of the word, number of words)


@dataclass(frozen=True)
class Finding:
    """A problem in the data: ``level`` is ``error`` or ``warning``."""

    level: str
    text: str


def check_samples(samples: Sequence[Sample]) -> list[Finding]:
    """Look for rows that contradict or repeat each other, errors first.

    All unlearn sides are compared with all retain sides, within and across domains: they are
    trained in opposite directions. Held-out rows are compared with all others. Case, spacing and
    system turns are ignored.
    """
    sides: _Sides = {}
    held_out: _Sides = {}
    for sample in samples:
        group = held_out if sample.part == HELD_OUT else sides
        group.setdefault((sample.domain, sample.side), []).append(normalised(sample))
    findings: list[Finding] = []
    for (name, texts), (other, others) in product(sides.items(), repeat=2):
        if name[1] == "unlearn" and other[1] in ("retain", CHECK):
            findings += _same_rows(".".join(name), texts, ".".join(other), others)
        if name[1] == "unlearn" and other[1] == "retain":
            findings += _similar_prompts(".".join(name), texts, ".".join(other), others)
    for name, texts in sides.items():
        findings += _leaks(".".join(name), texts)
        findings += _duplicates(".".join(name), texts)
    for name, texts in held_out.items():
        findings += _known(".".join(name), texts, sides)
        findings += _duplicates(".".join(name), texts)
    return sorted(findings, key=lambda finding: finding.level != "error")


def _same_rows(name: str, texts: list[Text], other: str, others: list[Text]) -> Iterator[Finding]:
    """Find rows that are to be unlearned and to be retained at once."""
    if pairs := _repeated(texts, others):
        twice = " Did you give the same file twice?" if _share(texts, others) >= 0.5 else ""
        yield Finding(
            "error",
            f"{len(pairs)} of the {len(texts)} rows of {name} are also rows of {other}, e.g. "
            f"{_show(pairs)} (numbers count from 0). A row cannot be unlearned and stay: drop it "
            f"from one.{twice}",
        )


def _leaks(name: str, texts: list[Text]) -> Iterator[Finding]:
    """Find val rows that are trained on; real data sets have a few, half is a mistake."""
    train = [text for text in texts if text.part == "train"]
    val = [text for text in texts if text.part == "val"]
    if pairs := _repeated(val, train):
        half = _share(train, val) >= 0.5
        doubt = "Did you give the same file twice?" if half else "Its validation measures training."
        yield Finding(
            "error" if half else "warning",
            f"{len(pairs)} of the {len(val)} rows of {name}.val are also rows of {name}.train, "
            f"e.g. {_show(pairs)}. {doubt}",
        )


def _known(name: str, texts: list[Text], sides: _Sides) -> Iterator[Finding]:
    """Find held-out rows that are also rows of another part, on which a model may be trained."""
    if pairs := _repeated(texts, [text for others in sides.values() for text in others]):
        yield Finding(
            "error",
            f"{len(pairs)} of the {len(texts)} rows of {name}.{HELD_OUT} are also rows of another "
            f"part, e.g. {_show(pairs)}. Held-out rows must be rows that no model has seen: drop "
            "them.",
        )


def _duplicates(name: str, texts: list[Text]) -> Iterator[Finding]:
    """Count the rows that repeat an earlier row of the same source."""
    given = [(text.part, text.row) for text in texts]
    rows, distinct = (Counter(part for part, _ in found) for found in (given, set(given)))
    for part, count in (rows - distinct).items():
        yield Finding(
            "warning",
            f"{count} {'row' if count == 1 else 'rows'} of {name}.{part} "
            f"{'repeats' if count == 1 else 'repeat'} an earlier row of it.",
        )


def _similar_prompts(
    name: str, texts: list[Text], other: str, others: list[Text]
) -> Iterator[Finding]:
    """Find nearly equal prompts on both sides; equal rows are left to ``_same_rows``."""
    same = {text.row for text in texts} & {text.row for text in others}
    search = _Similar([text for text in others if text.row not in same])
    matches = [(text.key, search(text)) for text in texts if text.row not in same]
    if pairs := [(key, match.key) for key, match in matches if match]:
        yield Finding(
            "warning",
            f"{len(pairs)} of the {len(texts)} prompts of {name} are nearly the same as prompts "
            f"of {other}, e.g. {_show(pairs)}. Unlearning the one may damage the other.",
        )


class _Similar:
    """Search a fixed set of texts for one whose prompt has a similarity of at least ``SIMILAR``.

    Both the sets of words (Jaccard) and the sequences of words (difflib) must be that similar.
    With words ordered from rare to common, two such sets share one of their first
    ``n - ceil(SIMILAR * n) + 1`` words, and the words after it must suffice for the rest of the
    overlap (prefix and position filter of PPJoin, Xiao et al. 2008). Only such pairs are compared:
    2000 x 2000 prompts take about a second instead of minutes.
    """

    def __init__(self, texts: list[Text]) -> None:
        self.exact = {text.prompt: text for text in reversed(texts)}
        self.words = {prompt: words_of(prompt) for prompt in self.exact}
        self.count = Counter(word for words in self.words.values() for word in set(words))
        self.index: dict[str, _Bucket] = {}
        for prompt, words in self.words.items():
            ordered = self._ordered(words)
            for rank, word in enumerate(_prefix(ordered)):
                bucket = self.index.setdefault(word, {})
                bucket.setdefault((rank, len(ordered)), []).append(prompt)

    def __call__(self, text: Text) -> Text | None:
        """Return a text with nearly the same prompt, or None."""
        if not text.prompt:
            return None
        if text.prompt in self.exact:
            return self.exact[text.prompt]
        words = words_of(text.prompt)
        prompts = self._candidates(self._ordered(words))
        return next((self.exact[p] for p in prompts if _alike(words, self.words[p])), None)

    def _ordered(self, words: list[str]) -> list[str]:
        return sorted(set(words), key=lambda word: (self.count[word], word))

    def _candidates(self, ordered: list[str]) -> Iterable[str]:
        size = len(ordered)
        for rank, word in enumerate(_prefix(ordered)):
            for (other_rank, other_size), prompts in self.index.get(word, {}).items():
                overlap = min(size - rank, other_size - other_rank)
                if overlap * (1 + SIMILAR) >= SIMILAR * (size + other_size) - _ROUNDING:
                    yield from prompts


def _prefix(ordered: list[str]) -> list[str]:
    """Return the first words; similar sets share at least one of them."""
    return ordered[: len(ordered) - ceil(SIMILAR * len(ordered) - _ROUNDING) + 1]


def _alike(words: list[str], others: list[str]) -> bool:
    ours, theirs = set(words), set(others)
    if len(ours & theirs) < SIMILAR * len(ours | theirs) - _ROUNDING:
        return False
    return SequenceMatcher(None, words, others, autojunk=False).ratio() >= SIMILAR


def _repeated(texts: list[Text], others: list[Text]) -> list[tuple[str, str]]:
    """Return the keys of the texts that are also among ``others``, each with its first match."""
    keys = {text.row: text.key for text in reversed(others)}
    return [(text.key, keys[text.row]) for text in texts if text.row in keys]


def _share(texts: list[Text], others: list[Text]) -> float:
    """Return the share (0-1) of rows that the other list contains, the larger of the two sides."""
    same = {text.row for text in texts} & {text.row for text in others}
    return max(sum(text.row in same for text in side) / len(side) for side in (texts, others))


def _show(pairs: Iterable[tuple[str, str]]) -> str:
    """Name the first pairs of keys."""
    return "; ".join(f"{first} and {second}" for first, second in list(pairs)[:_EXAMPLES])
