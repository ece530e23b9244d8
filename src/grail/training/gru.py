"""Gradient rectification: what opposes the retain side is taken out of the unlearn gradient.

Pure tensors (GRU, arXiv 2503.09117); gradients come masked, so inner products are taken among free
entries: energy in frozen ones could not move and must not enter the correction.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

NEWEST = 0.8
"""Weight of the newest retain gradient in its moving average (the paper's choice)."""

Gradients = Mapping[str, Tensor]


def averaged(direction: Gradients, retain: Gradients) -> dict[str, Tensor]:
    """Return the moving average of retain gradients; the first gradient starts it."""
    if not direction:
        return {name: value.clone() for name, value in retain.items()}
    return {name: (1 - NEWEST) * direction[name] + NEWEST * retain[name] for name in retain}


def rectified(unlearn: Gradients, direction: Gradients) -> dict[str, Tensor]:
    """Return the unlearn gradient without its part against ``direction``.

    g_u - (<g_u, g_r> / |g_r|^2) g_r where <g_u, g_r> < 0, else g_u as it is. Afterwards
    <g_u, g_r> >= 0: a small step along -g_u does not raise the retain loss to first order.
    """
    product = inner(unlearn, direction)
    if product >= 0:
        return dict(unlearn)
    factor = product / inner(direction, direction)
    return {
        name: value - (factor * direction[name].double()).to(value)
        for name, value in unlearn.items()
    }


def inner(a: Gradients, b: Gradients) -> float:
    """Return <a, b> over all parameters, in float64."""
    return sum(float(torch.sum(a[name].double() * b[name].double())) for name in a)
