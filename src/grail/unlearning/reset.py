"""Reset: entries go back to where they were before the facts were learnt; training then heals.

No loss alone gives such removal: what was only suppressed comes back after a few steps on related
text, what was reset has to be learnt again (UNDO, arXiv 2506.06278).
"""

import torch
from torch import Tensor

from grail.model.weights import Weights

NOISE = 0.1
"""Weight of the noise where weights have no earlier state (beta of UNDO for language)."""


def reset_weights(
    vanilla: Weights, before: Weights | None, kept: Weights, amount: float, seed: int
) -> dict[str, Tensor]:
    """Return the weights with which the training starts.

    Every entry that does not survive moves by ``amount`` (0-1) from its vanilla value to its value
    in ``before``: at 1 it has that value to the bit, and survivors have their vanilla bits. Without
    a model before, matrices go to ``NOISE`` times a Xavier-uniform draw, and other parameters, such
    as the weights of norms, stay: shrinking them would rescale every layer.

    ``kept`` are bool tensors of the same names and shapes, True where an entry survives; ``seed``
    is that of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in vanilla.items():
        if before is not None:
            goal = before[name].to(value)
        elif value.dim() < 2:
            goal = value
        else:
            noise = torch.nn.init.xavier_uniform_(
                torch.empty(value.shape, dtype=torch.float32), generator=generator
            )
            goal = (NOISE * noise).to(value)
        moved = goal if amount == 1 else torch.lerp(value, goal, amount)
        weights[name] = torch.where(kept[name].to(value.device), value, moved)
    return weights
