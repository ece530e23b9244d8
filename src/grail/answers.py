"""What a model says about the answers of a batch: NLL and hits per token, means per row.

One place for the numbers that training, unlearning and evaluation all read off the same logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grail.data.encode import Batch
from grail.model import Policy, answer_logits, evaluating, token_nll
from grail.reference import Reference


@dataclass(frozen=True)
class Answers:
    """A model's answers for a batch: the answer tokens of all rows behind each other.

    Attributes:
        logits: The policy's logits, one line per answer token.
        targets: The token that each line must predict.
        lengths: Answer tokens per row.
        reference: The reference's logits for the same tokens, where a loss compares with them.
    """

    logits: Float[Tensor, "K V"]
    targets: Int[Tensor, " K"]
    lengths: Int[Tensor, " B"]
    reference: Float[Tensor, "K V"] | None = None

    @cached_property
    def nll(self) -> Float[Tensor, " K"]:
        """-log p(target) in nats, one per answer token."""
        return token_nll(self.logits, self.targets)

    @cached_property
    def guesses(self) -> Int[Tensor, " K"]:
        """The most probable token of each line."""
        return self.logits.detach().argmax(-1)

    @property
    def right(self) -> Bool[Tensor, " K"]:
        """Whether the target was the most probable token."""
        return self.guesses == self.targets

    @property
    def accuracy(self) -> Float[Tensor, " B"]:
        """Share of right tokens per row, 0-1."""
        return mean_per_row(self.right.float(), self.lengths)


def mean_per_row(values: Float[Tensor, " K"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the mean over each row's answer tokens.

    Not by index_add: on a GPU it adds in an order of its own, and equal runs would differ.
    """
    return torch.stack([row.mean() for row in values.split(lengths.tolist())])


def answers_of(model: Policy, batch: Batch, reference: Reference | None = None) -> Answers:
    """Run the model over a batch and read its answers (with gradients, where they are on).

    A reference is run first, without gradients and without dropout.
    """
    compared = None
    if reference is not None:
        with torch.no_grad(), reference.in_place(), evaluating(model):
            compared = answer_logits(model, batch.ids, batch.attention, batch.at)
    logits = answer_logits(model, batch.ids, batch.attention, batch.at)
    lengths = torch.tensor(batch.lengths, device=logits.device)
    return Answers(logits, batch.targets[batch.at], lengths, compared)
