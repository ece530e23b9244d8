"""The mean loss over all draws of random labels, where the model reads the true tokens.

A token's NLL is linear in the distribution of its target, so the mean gradient over all draws is
the gradient of one loss.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grail.data.batches import Batch
from grail.data.labels import RandomLabels
from grail.model.nll import mixed_nll


@dataclass(frozen=True)
class ExpectedNll:
    """NLL of each answer token of a batch, in nats, with the mean over draws as its target.

    Position t's target is its true token with probability 1 - rho and uniform over the vocabulary
    of ``labels`` with probability rho, that of being substituted. The draws of two positions are
    dependent, but the mean of their sum does not depend on that.
    """

    labels: RandomLabels

    def __call__(self, logits: Float[Tensor, "K V"], batch: Batch) -> Float[Tensor, " K"]:
        """Return (1 - rho) NLL(true token) + rho * mean NLL over the vocabulary."""
        truth = batch.targets[batch.at]
        lengths = torch.tensor(batch.lengths, device=logits.device)
        chances = [self.labels.chance(length) for length in batch.lengths]
        rho = torch.tensor(chances, device=logits.device).repeat_interleave(lengths)
        words = torch.tensor(self.labels.vocabulary, device=logits.device)
        return mixed_nll(logits, truth, rho, words)
