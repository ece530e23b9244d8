"""A model's predictions for the answers of a batch: NLL and hits per token, means per row.

Training, unlearning and evaluation take their numbers from the same logits, here.
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
from grail.model.forward import Policy, answer_logits, evaluating
from grail.model.fused_lora import fused
from grail.model.nll import CHUNK, token_nll
from grail.model.packing import pack, packed_logits, packs
from grail.model.sharded import is_sharded
from grail.model.weights import Weights, holding

IMPOSSIBLE = -1e4
"""Replaces a log p of minus infinity: p is 0 in either case, and 0 times this is not NaN."""


@dataclass(frozen=True)
class Answers:
    """A model's predictions for a batch: the answer tokens of all rows, concatenated.

    Attributes:
        logits: The policy's logits.
        targets: The token to predict at each position.
        lengths: Answer tokens per row.
        reference: The reference's logits at the same positions, if a loss compares with them.
    """

    logits: Float[Tensor, "K V"]
    targets: Int[Tensor, " K"]
    lengths: Int[Tensor, " B"]
    reference: Float[Tensor, "K V"] | None = None

    @cached_property
    def nll(self) -> Float[Tensor, " K"]:
        """-log p(target) of each token, in nats."""
        return token_nll(self.logits, self.targets)

    @cached_property
    def guesses(self) -> Int[Tensor, " K"]:
        """The most probable token at each position."""
        return self.logits.detach().argmax(-1)

    @cached_property
    def moments(self) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Mean and standard deviation of log p at each position (nats): ``log_p_moments``."""
        return log_p_moments(self.logits.detach())

    @property
    def right(self) -> Bool[Tensor, " K"]:
        """Whether the target was the most probable token."""
        return self.guesses == self.targets

    @property
    def accuracy(self) -> Float[Tensor, " B"]:
        """Share of right tokens of each row, 0-1."""
        return mean_per_row(self.right.float(), self.lengths)

    def split(self, rows: Sequence[int]) -> list[Answers]:
        """Split the answers into those of the first ``rows[0]`` rows, the next ``rows[1]``, ..."""
        lengths = self.lengths.split(list(rows))
        tokens = [int(part.sum()) for part in lengths]
        parts = zip(self.logits.split(tokens), self.targets.split(tokens), lengths, strict=True)
        return [Answers(*part) for part in parts]


def log_p_moments(
    logits: Float[Tensor, "K V"],
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Return mean and standard deviation of log p of a token drawn from p, at each position (nats).

    In float32, a few positions at a time, without a second buffer of the size of the logits. The
    deviation is computed around the mean: a difference of squares would cancel.
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

    Not by index_add: on a GPU its order of additions varies, and equal runs would differ.
    """
    return torch.stack([row.mean() for row in values.split(lengths.tolist())])


def answers_of(model: Policy, batch: Batch, reference: Weights | None = None) -> Answers:
    """Run the model on a batch, and also with the reference's weights if they are given."""
    logits = _logits(model, batch)
    lengths = torch.tensor(batch.lengths, device=logits.device)
    compared = None if reference is None else reference_logits(model, batch, reference)
    return Answers(logits, batch.targets[batch.at], lengths, compared)


@torch.no_grad()
def reference_logits(model: Policy, batch: Batch, reference: Weights) -> Float[Tensor, "K V"]:
    """Return the logits of the model with the reference's weights, without dropout."""
    with holding(model, reference), evaluating(model):
        return _logits(model, batch)


def _logits(model: Policy, batch: Batch) -> Float[Tensor, "K V"]:
    with fused(model):
        if packs(model, batch.rows):
            return packed_logits(model, pack(model, batch.rows))
        return answer_logits(model, batch)


def together(model: Policy, rows: Sequence[Encoded]) -> list[list[Encoded]]:
    """Group the rows of a step into those of one forward pass: all of them, if they are packed.

    All of them, too, if the model is in parts: every process must do as many passes.
    """
    return [list(rows)] if packs(model, rows) or is_sharded(model) else by_length(rows)
