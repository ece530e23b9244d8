"""Exact freezing: no gradient and no weight decay for frozen entries, and a proof at the end.

Four rules: the gradient is masked at every step from the first on, before its norm is taken; the
optimiser is built with the mask in place; weight decay skips frozen entries; and the weights at the
end are compared with those at the start, bit by bit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grail.artifacts import Mask, changed_entries, frozen_digest
from grail.model.sharded import Whole, own_parts, part_of, summed

Gradients = dict[str, Tensor]
"""Parameter name -> gradient."""

Worth = Callable[[float], bool]
"""Whether the free entries of a tensor, of which this share is frozen, are trained as a vector."""


class Freezing:
    """A mask over the parameters of a model, and the values of its frozen entries at the start.

    Without a mask nothing is frozen and there is nothing to prove. The parameters in
    ``self.vectors`` (name -> frozen entries), those that are ``worth`` it, are trained as vectors
    of their free entries, and the gradients and weights that the methods take are such vectors. Of
    a model in parts, everything here is this process's part; the proof counts over all processes.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        mask: Mask | None,
        worth: Worth = lambda _: False,
    ) -> None:
        self.whole, self.parameters, self.mask = parameters, own_parts(parameters), mask
        self.frozen: Gradients = {}
        self.hidden: dict[str, Gradients] = {}  # side -> entries that its gradient must skip
        if mask is not None:
            self.frozen = self._on_device(mask.frozen)
            self.hidden = dict.fromkeys(("", "unlearn", "retain"), self.frozen)
        if mask is not None and mask.by_side:
            self.hidden = {s: self._on_device(mask.for_side(s)) for s in ("unlearn", "retain")}
        shares = {name: float(bits.float().mean()) for name, bits in self.frozen.items()}
        self.vectors = {n: self.frozen[n] for n, share in shares.items() if worth(share)}
        if self.vectors:
            self.hidden = {side: self._of_vectors(bits) for side, bits in self.hidden.items()}
        self.start = {n: self.parameters[n].detach().cpu().clone() for n in self.frozen}

    def _on_device(self, bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = {name: part_of(value, self.whole[name]) for name, value in bits.items()}
        return {name: value.to(self.parameters[name].device) for name, value in own.items()}

    def _of_vectors(self, hidden: Gradients) -> Gradients:
        """Return the entries hidden from a side, of vectors among their free entries."""
        if hidden is self.frozen:  # a vector has no frozen entries
            return {n: bits for n, bits in hidden.items() if n not in self.vectors}
        free = {name: ~bits for name, bits in self.vectors.items()}
        return {n: bits[free[n]] if n in free else bits for n, bits in hidden.items()}

    def masked(self, gradients: Gradients, side: str) -> Gradients:
        """Return gradients with zeros at the entries frozen for ``side`` ("": rows of all sides).

        Filled, not multiplied: 0 * -x is -0.0, and 0 * inf is NaN.
        """
        hidden = self.hidden[side] if self.hidden else {}  # KeyError: task and mask disagree
        return {
            name: value.masked_fill(hidden[name], 0.0) if name in hidden else value
            for name, value in gradients.items()
        }

    @torch.no_grad()
    def decay(self, weights: Mapping[str, nn.Parameter], shrink: float) -> None:
        """Apply decoupled weight decay: free entries times ``1 - shrink``, frozen ones times 1.

        To be called before the step, as torch.optim.AdamW does. The optimisers' own decay ignores
        the gradient and would move frozen entries.
        """
        for name, parameter in weights.items():
            scale = torch.full_like(parameter, 1 - shrink)
            if name in self.frozen and name not in self.vectors:
                scale.masked_fill_(self.frozen[name], 1.0)
            parameter.mul_(scale)

    def proof(self) -> dict[str, Any]:
        """Compare all weights with the start and return counts and digests ({} without a mask).

        Raises:
            RuntimeError: if any bit of a frozen entry changed.
        """
        if self.mask is None:
            return {}
        after = {name: self.parameters[name].detach().cpu() for name in self.start}
        moved = {n: changed_entries(self.start[n], after[n]) for n in after}
        frozen = {n: bits.flatten().cpu() for n, bits in self.frozen.items()}
        sharded = any(self.whole[n] is not self.parameters[n] for n in after)
        changed = int(summed(sum(int((moved[n] & frozen[n]).sum()) for n in after), sharded))
        if changed:
            raise RuntimeError(f"{changed} frozen entries changed: the freezing is broken")
        return {
            **self.mask.counts(),
            "changed": changed,
            "moved": int(summed(sum(int(bits.sum()) for bits in moved.values()), sharded)),
            "sha256_before": frozen_digest(Whole(self.start, self.whole), self.mask),
            "sha256_after": frozen_digest(Whole(after, self.whole), self.mask),
        }
