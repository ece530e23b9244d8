"""Batches of encoded samples; their order is a function of (seed, epoch)."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grail.data.encode import Encoded

IGNORED = -100
"""Target at positions that no loss reads (prompt and padding), as everywhere in the field."""


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right.

    Attributes:
        ids: Token ids.
        attention: 1 on tokens, 0 on padding.
        targets: ``targets[b, t]`` is the label of token t + 1 if that is an answer token, else
            IGNORED.
        rows: The encoded samples, one for each row.
    """

    ids: Int[Tensor, "B T"]
    attention: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    rows: tuple[Encoded, ...]

    @property
    def at(self) -> Bool[Tensor, "B T"]:
        """Where an answer token is predicted."""
        return self.targets != IGNORED

    @property
    def lengths(self) -> list[int]:
        """Answer tokens per row."""
        return [len(row.answer) for row in self.rows]


def collate(rows: Sequence[Encoded], pad: int, device: torch.device | str = "cpu") -> Batch:
    """Pad rows on the right (a causal model never sees padding to the right of a token)."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED)
    for b, row in enumerate(rows):
        length = len(row.ids)
        ids[b, :length] = torch.tensor(row.ids)
        attention[b, :length] = 1
        labels = row.answer if row.targets is None else row.targets
        targets[b, row.start - 1 : length - 1] = torch.tensor(labels)
    return Batch(ids.to(device), attention.to(device), targets.to(device), tuple(rows))


def stream(*words: object) -> random.Random:
    """Return a random generator that depends on the given words only, such as (seed, epoch)."""
    text = "/".join(str(word) for word in words)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def shuffled(rows: Sequence[Encoded], *words: object) -> list[Encoded]:
    """Return the rows in an order that depends on ``words`` only."""
    order = list(rows)
    stream(*words).shuffle(order)
    return order


def by_length(rows: Sequence[Encoded]) -> list[list[Encoded]]:
    """Group the rows of a step so that no row is padded to more than 1 / 0.7 of its length.

    The loss of a step is a sum over rows, so the split changes nothing but the amount of padding.
    """
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if groups and len(row.ids) >= 0.7 * len(groups[-1][0].ids):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def by_tokens(rows: Sequence[Encoded], batch_tokens: int, copies: int = 1) -> list[list[Encoded]]:
    """Group rows of similar length so that a padded batch has at most ``batch_tokens`` tokens.

    A row longer than that gets a batch to itself. ``copies`` is how many times the batch will
    contain each row (the trials of a sample).
    """
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: (len(row.ids), row.key)):
        if groups and len(row.ids) * (len(groups[-1]) + 1) * copies <= batch_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
