"""New answers for the unlearn rows: random tokens, or a refusal."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice

from grail.data.batches import stream
from grail.data.encode import Encoded

Substitute = Callable[[Encoded], Encoded]

REFUSAL = "No idea."
"""Repeated to the answer's length, as JensUn (arXiv 2509.02820) does with such a text."""


def truth(row: Encoded) -> Encoded:
    """Return the row unchanged."""
    return row


def random_targets(vocabulary: Sequence[int], seed: int) -> Substitute:
    """Return a substitute that replaces every answer token's label by a uniformly drawn token.

    The labels depend on (seed, row's key) only: a row has the same ones in all epochs. The input
    stays the true answer, so the model learns to continue true prefixes with noise.
    """

    def draw(row: Encoded) -> Encoded:
        random = stream(seed, "random targets", row.key)
        targets = tuple(vocabulary[random.randrange(len(vocabulary))] for _ in row.answer)
        return replace(row, targets=targets)

    return draw


def refusal(tokens: Sequence[int]) -> Substitute:
    """Return a substitute whose answer repeats ``tokens`` to the true answer's length.

    Raises:
        ValueError: if there are no tokens.
    """
    if not tokens:
        raise ValueError("a refusal needs at least one token")

    def refuse(row: Encoded) -> Encoded:
        answer = islice(cycle(tokens), len(row.answer))
        return replace(row, ids=(*row.ids[: row.start], *answer))

    return refuse
