"""What a model writes after the prompts of rows: rows of similar answer length together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grail.data.encode import Encoded
from grail.generation import Draw, generate
from grail.model import Policy


def groups_of(rows: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Return the batches in which prompts are continued, as places in ``rows``."""
    return _batches(rows, [0] * len(rows), range(len(rows)), batch_size)


def _batches(
    rows: Sequence[Encoded], known: Sequence[int], places: Sequence[int], batch_size: int
) -> list[list[int]]:
    def likeness(place: int) -> tuple[int, int, str]:
        row, begun = rows[place], known[place]
        return len(row.answer) - begun, row.start + begun, row.key

    order = sorted(places, key=likeness)
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
        self,
        rows: Sequence[Encoded],
        say: Callable[[int], None],
        draw: Draw | None = None,
        known: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Continue the rows' prompts, and return the texts in the order of ``rows``.

        Args:
            rows: The rows; one may stand there several times.
            say: Is told how many are done.
            draw: How to sample, each batch from a seed of its own; None: greedily.
            known: Key -> with how many tokens of the answer the greedy text is known to begin: the
                first that a teacher-forced pass found most probable, each after those before it.
                They are read, not made again; a row that is known to its end needs no step at all.
        """
        heads = [self._head(row, (known or {}).get(row.key, 0)) for row in rows]
        written = [list(head) for head in heads]
        open_ = [i for i, row in enumerate(rows) if not self._ended(heads[i], row)]
        done = len(rows) - len(open_)
        if done:
            say(done)
        for places in _batches(rows, list(map(len, heads)), open_, self.batch_size):
            prompts = [(*rows[i].ids[: rows[i].start], *heads[i]) for i in places]
            most = [most_new(rows[i], self.limit) - len(heads[i]) for i in places]
            how = None if draw is None else replace(draw, seed=draw.seed + done)
            made = generate(self.model, prompts, most, self.tokenizer, how)
            for i, ids in zip(places, made, strict=True):
                written[i] += ids
            done += len(places)
            say(done)
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]

    def _head(self, row: Encoded, known: int) -> tuple[int, ...]:
        """Return what is known of a text, up to the end token and within the limit."""
        head, end = row.answer[: min(known, most_new(row, self.limit))], self._end
        return head[: head.index(end) + 1] if end in head else head

    def _ended(self, head: Sequence[int], row: Encoded) -> bool:
        return self._end in head or len(head) == most_new(row, self.limit)

    @property
    def _end(self) -> int:
        return self.tokenizer.eos_token_id
