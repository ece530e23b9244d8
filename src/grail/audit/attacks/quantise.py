"""Simulated quantisation of one weight: round to nearest on a symmetric grid.

Unlearning often moves weights by less than a step of a coarse grid, so that rounding undoes it
(Zhang et al., arXiv 2410.16454).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

GRIDS: dict[str, tuple[int, int | None]] = {"int8": (8, None), "int4": (4, 64)}
"""Name -> (bits, inputs of an output channel that share a scale; None: all of them)."""


def quantised(
    weight: Float[Tensor, "O I"], bits: int, group: int | None = None
) -> Float[Tensor, "O I"]:
    """Return the weight rounded to multiples of a scale per output channel, or per group of it.

    With m = 2^(bits-1) - 1, scale = max |w| / m and w becomes scale * round(w / scale): integers
    from -m to m, so the largest entry of a group is kept and no entry moves by more than scale / 2.
    A group of zeros stays zeros; the last group of a channel may be shorter. The weight has a row
    per output channel, in float32; ``group`` counts inputs, None: all of them.
    """
    most = 2 ** (bits - 1) - 1
    outputs, inputs = weight.shape
    size = inputs if group is None else min(group, inputs)
    groups = pad(weight, (0, -inputs % size)).view(outputs, -1, size)
    scale = groups.abs().amax(dim=-1, keepdim=True) / most  # O x groups x 1
    step = torch.where(scale > 0, scale, torch.ones_like(scale))
    rounded = (groups / step).round().clamp(-most, most) * step
    return rounded.view(outputs, -1)[:, :inputs].contiguous()
