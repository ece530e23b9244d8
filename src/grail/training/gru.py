"""Gradient rectification (GRU, arXiv 2503.09117): unlearn without opposing the retain gradient.

Gradients come masked, so inner products run over free entries only: a frozen entry cannot move and
must not influence the correction.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

NEWEST = 0.8
"""Weight of the newest retain gradient in its moving average (the paper's choice)."""


def averaged(direction: Mapping[str, Tensor], retain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the moving average of retain gradients; the first gradient starts it."""
    if not direction:
        return {name: value.clone() for name, value in retain.items()}
    return {name: (1 - NEWEST) * direction[name] + NEWEST * retain[name] for name in retain}


def rectified(
    unlearn: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    over_all: Callable[[float], float] = float,
) -> dict[str, Tensor]:
    """Return the unlearn gradient without its part against ``direction``.

    g_u - (<g_u, g_r> / |g_r|^2) g_r where <g_u, g_r> < 0, else g_u unchanged. Afterwards
    <g_u, g_r> >= 0: a small step along -g_u does not raise the retain loss to first order. Where
    each process has a part of the gradients, ``over_all`` adds up a number of each.
    """
    product = over_all(inner(unlearn, direction))
    if product >= 0:
        return dict(unlearn)
    factor = product / over_all(inner(direction, direction))
    return {
        name: value - (factor * direction[name].double()).to(value)
        for name, value in unlearn.items()
    }


def inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return <a, b> over all parameters, in float64."""
    return sum(float(torch.sum(a[name].double() * b[name].double())) for name in a)
