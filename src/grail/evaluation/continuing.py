"""What a model writes after the prompts of rows: rows of similar answer length together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grail.data.encode import Encoded
from grail.generation import Draw, generate
from grail.model import Policy


def groups_of(rows: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Return the batches in which prompts are continued, as places in ``rows``."""

    def likeness(place: int) -> tuple[int, int, str]:
        row = rows[place]
        return len(row.answer), row.start, row.key

    order = sorted(range(len(rows)), key=likeness)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def most_new(row: Encoded, limit: int) -> int:
    """Return how many tokens may be made: half as many again as the true ones, within a limit."""
    return min(limit, len(row.answer) + len(row.answer) // 2 + 4)


@dataclass(frozen=True)
class Writer:
    """Lets a model continue prompts.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        limit: The most tokens of a text.
        batch_size: Prompts that are continued at once.
    """

    model: Policy
    tokenizer: Any
    limit: int
    batch_size: int

    def continued(
        self, rows: Sequence[Encoded], say: Callable[[int], None], draw: Draw | None = None
    ) -> list[str]:
        """Continue the rows' prompts, and return the texts in the order of ``rows``.

        Args:
            rows: The rows; one may stand there several times.
            say: Is told how many are done.
            draw: How to sample, each batch from a seed of its own; None: greedily.
        """
        texts, done = [""] * len(rows), 0
        for places in groups_of(rows, self.batch_size):
            group = [rows[i] for i in places]
            prompts = [row.ids[: row.start] for row in group]
            most = [most_new(row, self.limit) for row in group]
            how = None if draw is None else replace(draw, seed=draw.seed + done)
            made = generate(self.model, prompts, most, self.tokenizer, how)
            for i, ids in zip(places, made, strict=True):
                texts[i] = self.tokenizer.decode(ids, skip_special_tokens=True)
            done += len(group)
            say(done)
        return texts
