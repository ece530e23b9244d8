"""What a model says about the answers of a batch: NLL and hits per token, means per row.

One place for the numbers that training, unlearning and evaluation all read off the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grail.data.batches import Batch, by_length
from grail.data.encode import Encoded
from grail.model.forward import Policy, answer_logits, evaluating, packed_logits
from grail.model.fused_lora import fused
from grail.model.nll import CHUNK, token_nll
from grail.model.packing import pack, packs
from grail.model.reference import Reference

IMPOSSIBLE = -1e4
"""Stands for log p of minus infinity: p is 0 in either case, and 0 times this is no NaN."""


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

    @cached_property
    def moments(self) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Mean and standard deviation of log p per line (nats), see ``log_p_moments``."""
        return log_p_moments(self.logits.detach())

    @property
    def right(self) -> Bool[Tensor, " K"]:
        """Whether the target was the most probable token."""
        return self.guesses == self.targets

    @property
    def accuracy(self) -> Float[Tensor, " B"]:
        """Share of right tokens per row, 0-1."""
        return mean_per_row(self.right.float(), self.lengths)

    def split(self, rows: Sequence[int]) -> list[Answers]:
        """Split the answers into those of the first ``rows[0]`` rows, the next ``rows[1]``, ..."""
        lengths = self.lengths.split(list(rows))
        tokens = [int(own.sum()) for own in lengths]
        parts = zip(self.logits.split(tokens), self.targets.split(tokens), lengths, strict=True)
        return [Answers(*part) for part in parts]


def log_p_moments(
    logits: Float[Tensor, "K V"],
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Return mean and standard deviation of log p of a token drawn from each line's own p (nats).

    In float32, a few lines at a time: no second buffer of the size of the logits. The deviation is
    taken around the mean, because the difference of two large squares would lose a small one.
    """
    means, deviations = list[Tensor](), list[Tensor]()
    for lines in logits.split(max(1, CHUNK // logits.shape[1])):
        log_p = lines.log_softmax(-1, dtype=torch.float32).clamp_(min=IMPOSSIBLE)
        p = log_p.exp()
        mean = (p * log_p).sum(-1)
        variance = log_p.sub_(mean[:, None]).square_().mul_(p).sum(-1)
        means.append(mean)
        deviations.append(variance.sqrt())
    return torch.cat(means), torch.cat(deviations)


def mean_per_row(values: Float[Tensor, " K"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the mean over each row's answer tokens.

    Not by index_add: on a GPU it adds in an order of its own, and equal runs would differ.
    """
    return torch.stack([row.mean() for row in values.split(lengths.tolist())])


def answers_of(model: Policy, batch: Batch, reference: Reference | None = None) -> Answers:
    """Run the model over a batch and read its answers (with gradients, where they are on).

    A reference is run too, without gradients and without dropout.
    """
    logits = _logits(model, batch)
    lengths = torch.tensor(batch.lengths, device=logits.device)
    compared = None if reference is None else reference_logits(model, batch, reference)
    return Answers(logits, batch.targets[batch.at], lengths, compared)


@torch.no_grad()
def reference_logits(model: Policy, batch: Batch, reference: Reference) -> Float[Tensor, "K V"]:
    """Return what the reference says about a batch, without dropout."""
    with reference.in_place(), evaluating(model):
        return _logits(model, batch)


def _logits(model: Policy, batch: Batch) -> Float[Tensor, "K V"]:
    with fused(model):
        if packs(model):
            return packed_logits(model, pack(batch.ids, batch.attention, batch.at))
        return answer_logits(model, batch.ids, batch.attention, batch.at)


def together(model: Policy, rows: Sequence[Encoded]) -> list[list[Encoded]]:
    """Group rows that one forward pass should read: all, where that computes on no padding."""
    return [list(rows)] if packs(model) else by_length(rows)
