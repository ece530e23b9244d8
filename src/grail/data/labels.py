"""Random labels for Stage 1 (paper, Stage 1); knows nothing of gradients."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from grail.data.batches import stream
from grail.data.encode import Encoded
from grail.errors import InputError


@dataclass(frozen=True)
class RandomLabels:
    """Draws random labels: uniform over ``vocabulary`` (no special token), prompt untouched.

    substitution:
        ``inputs_and_targets``: floor(L/2) draws with replacement of the L completion positions,
        replaced in the input and in the label (KnowUnDo's procedure; about 40 % of the positions
        are distinct). Here the end token is one of the L positions, special tokens are never
        drawn, and a completion of one token still has its label replaced.
        ``targets``: the same positions, replaced only in the label.
        ``all``: every position, in both (the paper's text taken literally).
    """

    vocabulary: tuple[int, ...]
    substitution: str
    seed: int

    def draw(self, row: Encoded, trial: int) -> Encoded:
        """Return the row with random labels, which depend on (seed, row's key, trial) only."""
        random = stream(self.seed, "labels", row.key, trial)
        labels = list(row.answer)
        for position in self._positions(len(labels), random):
            labels[position] = self.vocabulary[random.randrange(len(self.vocabulary))]
        if self.substitution == "targets":
            return replace(row, targets=tuple(labels))
        return replace(row, ids=(*row.ids[: row.start], *labels), targets=tuple(labels))

    def chance(self, length: int) -> float:
        """Return the probability that a trial draws a certain one of ``length`` positions."""
        if self.substitution == "all":
            return 1.0
        return 1 - (1 - 1 / length) ** _draws(length)

    def _positions(self, length: int, random: Random) -> list[int]:
        if self.substitution == "all":
            return list(range(length))
        return [random.randrange(length) for _ in range(_draws(length))]


def _draws(length: int) -> int:
    return max(1, length // 2)  # a completion of one token would otherwise keep its label


def ordinary_tokens(vocabulary_size: int, special: Iterable[int]) -> tuple[int, ...]:
    """Return all token ids but the special ones, ascending; InputError if there is no other."""
    ids = tuple(sorted(set(range(vocabulary_size)) - set(special)))
    if not ids:
        raise InputError("the tokenizer has special tokens only: no random label can be drawn.")
    return ids
