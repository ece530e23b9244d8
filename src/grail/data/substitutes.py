"""What the unlearn rows must say instead of the truth: random tokens, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice

from grail.data.batches import stream
from grail.data.encode import Encoded

Substitute = Callable[[Encoded], Encoded]

REFUSAL = "No idea."
"""Repeated over the answer's length, as JensUn (arXiv 2509.02820) does with a text of its kind."""


def truth(row: Encoded) -> Encoded:
    """Keep the row as it is."""
    return row


def random_targets(vocabulary: Sequence[int], seed: int) -> Substitute:
    """Return a substitute that makes every answer token's label a uniformly drawn one.

    A function of (seed, row's key): a row keeps its labels through all epochs. What the model reads
    stays true, so that it is the true prefixes that lead to noise.
    """

    def draw(row: Encoded) -> Encoded:
        random = stream(seed, "random targets", row.key)
        drawn = tuple(vocabulary[random.randrange(len(vocabulary))] for _ in row.answer)
        return replace(row, targets=drawn)

    return draw


def refusal(tokens: Sequence[int]) -> Substitute:
    """Return a substitute whose completion repeats ``tokens`` over the true completion's length.

    Raises:
        ValueError: if there are no tokens to repeat.
    """
    if not tokens:
        raise ValueError("a refusal needs at least one token")

    def refuse(row: Encoded) -> Encoded:
        said = tuple(islice(cycle(tokens), len(row.answer)))
        return replace(row, ids=(*row.ids[: row.start], *said))

    return refuse
