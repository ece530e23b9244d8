"""Losses: what a model says about the answers of a batch in, one number per sequence out.

Knows no weights, no sides and no step; all are unchanged by padding and by who shares the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grail.model import token_nll


@dataclass(frozen=True)
class Answers:
    """A model's answers for a batch: the answer tokens of all rows behind each other.

    Attributes:
        nll: -log p(token) in nats, one per answer token.
        right: Whether the token was the most probable one.
        lengths: Answer tokens per row.
    """

    nll: Float[Tensor, " K"]
    right: Bool[Tensor, " K"]
    lengths: Int[Tensor, " B"]

    @property
    def accuracy(self) -> Float[Tensor, " B"]:
        """Share of right tokens per row, 0-1."""
        return mean_per_row(self.right.float(), self.lengths)


def read_answers(
    logits: Float[Tensor, "K V"], targets: Int[Tensor, " K"], lengths: Int[Tensor, " B"]
) -> Answers:
    """Take from the logits what the losses need."""
    return Answers(token_nll(logits, targets), logits.detach().argmax(-1) == targets, lengths)


def mean_per_row(values: Float[Tensor, " K"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the mean over each row's answer tokens.

    Not by index_add: on a GPU it adds in an order of its own, and equal runs would differ.
    """
    return torch.stack([row.mean() for row in values.split(lengths.tolist())])


def nll(answers: Answers) -> Float[Tensor, " B"]:
    """Mean token NLL in nats."""
    return mean_per_row(answers.nll, answers.lengths)


def bounded_nll(answers: Answers, most: float | None) -> Float[Tensor, " B"]:
    """Mean token NLL in nats, where a token counts at most ``most`` and then gives no gradient.

    Ascent on an unbounded NLL never ends: the domain that gives way first takes the whole gradient
    norm and with it the room of the others.
    """
    if most is None:
        return nll(answers)
    return mean_per_row(answers.nll.clamp(max=most), answers.lengths)
