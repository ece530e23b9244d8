"""NLL of tokens without a float32 copy of the logits, which a large vocabulary makes too large.

Forward and backward read the logits a few lines (positions) at a time; between them only the logits
in their own precision and one number per line are stored.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 20
"""Logits converted at a time: 4 MiB in float32, which fits a core's cache."""


def token_nll(logits: Float[Tensor, "K V"], targets: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Return -log p(target) of each line in nats, in float32 (float64 from float64)."""
    return _Nll.apply(logits, targets, None, None)  # type: ignore[return-value]


def mixed_nll(
    logits: Float[Tensor, "K V"],
    targets: Int[Tensor, " K"],
    share: Float[Tensor, " K"],
    words: Int[Tensor, " W"],
) -> Float[Tensor, " K"]:
    """Return (1 - share) NLL(target) + share * mean NLL over ``words``, in nats for each line.

    It is the cross-entropy to a mixture: the true token, and with weight ``share`` the uniform
    distribution over ``words``. Logits of other tokens may be minus infinity.
    """
    even = torch.zeros(logits.shape[1], dtype=_wide(logits), device=logits.device)
    even[words] = 1 / len(words)
    return _Nll.apply(logits, targets, share.to(even.dtype), even)  # type: ignore[return-value]


class _Nll(torch.autograd.Function):
    """log sum exp z - (1 - share) z_target - share * mean z_words; gradients for the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, share: Tensor | None, even: Tensor | None
    ) -> Tensor:
        """Compute the loss of every line; ``even`` is the uniform distribution over the words."""
        wide = _wide(logits)
        sums, values = (logits.new_empty(len(logits), dtype=wide) for _ in range(2))
        for lines in _chunks(logits):
            z = logits[lines].to(wide)
            total = z.logsumexp(-1)
            target = z.gather(-1, targets[lines, None])[:, 0]
            if share is not None and even is not None:
                mean = z.clamp(min=torch.finfo(wide).min) @ even  # -inf times 0 would be NaN
                target = target + share[lines] * (mean - target)
            sums[lines], values[lines] = total, total - target
        ctx.save_for_backward(logits, targets, share, even, sums)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Compute p minus the target's distribution, times the gradient of each line."""
        logits, targets, share, even, sums = ctx.saved_tensors
        out = torch.empty_like(logits)
        for lines in _chunks(logits):
            p = (logits[lines].to(sums.dtype) - sums[lines, None]).exp_()
            true = torch.ones_like(p[:, :1])
            if share is not None:
                true -= share[lines, None]
                p.addr_(share[lines], even, alpha=-1)
            p.scatter_add_(-1, targets[lines, None], -true)
            out[lines] = p.mul_(gradients[0][lines, None])
        return out, None, None, None


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _chunks(logits: Tensor) -> Iterator[slice]:
    step = max(1, CHUNK // logits.shape[1])
    for first in range(0, len(logits), step):
        yield slice(first, first + step)
