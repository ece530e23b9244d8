"""Magnitude pruning of one weight: the smallest entries become zero."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def pruned(weight: Float[Tensor, "O I"], share: float) -> Float[Tensor, "O I"]:
    """Return the weight with its ``floor(share * entries)`` smallest entries set to 0.

    Smallest by absolute value; among equals, the first in the order of the tensor.

    Args:
        weight: Any weight.
        share: 0-1 of its entries.
    """
    flat = weight.flatten().clone()
    order = flat.abs().argsort(stable=True)
    flat[order[: math.floor(share * flat.numel())]] = 0.0
    return flat.view_as(weight)
