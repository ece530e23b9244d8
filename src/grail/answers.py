"""What a model says about the answers of a batch: NLL and hits per token, means per row.

One place for the numbers that training, unlearning and evaluation all read off the same logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grail.data.encode import Batch
from grail.model import Policy, answer_logits, token_nll


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


def answers_of(model: Policy, batch: Batch) -> Answers:
    """Run the model over a batch and read its answers (with gradients, where they are on)."""
    logits = answer_logits(model, batch.ids, batch.attention, batch.at)
    lengths = torch.tensor(batch.lengths, device=logits.device)
    return read_answers(logits, batch.targets[batch.at], lengths)
