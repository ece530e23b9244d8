"""How far to go back towards the vanilla model until retention is as wished.

A method that stops early keeps more and unlearns less; only at equal retention do methods compare
(the calibration of UWC, arXiv 2406.09179). Knows no rows: a callable measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grail.files import digest

CALIBRATED = "calibrated"
"""What results call the model of ``evaluation.retain_target``."""

TOLERANCE = 0.25
"""Percent of RS that the found model may keep more than was wished for."""

SEARCH = "bisection"
"""How the weight is found: what was found otherwise is found anew."""

MOST = 14
"""Measurements at most: the two ends, and twelve that halve what is between them each."""


def measured(weights: Mapping[str, str], target: float | None) -> dict[str, str]:
    """Return the digest of each model that results are about, from those of the two in folders."""
    if target is None:
        return dict(weights)
    return {**weights, CALIBRATED: digest([weights, target, SEARCH])}


def between(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], weight: float
) -> dict[str, Tensor]:
    """Return ``start + weight (end - start)`` of all tensors; at 0 and 1 exactly the ends."""
    return {name: torch.lerp(tensor, end[name], weight) for name, tensor in start.items()}


def weight_at(target: float, retain_success: Callable[[float], float]) -> tuple[float, float]:
    """Return the largest weight found at which the mean RS is still ``target`` percent, and its RS.

    By bisection: RS may stay level for long and fall within a hundredth of the way, where steps
    that expect a straight line do not arrive.

    Args:
        target: RS in percent.
        retain_success: Weight -> mean RS in percent of ``vanilla + weight (unlearned - vanilla)``;
            taken to fall with the weight.

    1 if the unlearned model itself keeps as much; 0 if no other weight that was tried does.
    """
    kept = retain_success(1.0)
    if kept >= target:
        return 1.0, kept
    low, high, kept = 0.0, 1.0, retain_success(0.0)
    for _ in range(MOST - 2):
        if kept < target or kept - target <= TOLERANCE:
            break
        middle = (low + high) / 2
        found = retain_success(middle)
        if found >= target:
            low, kept = middle, found
        else:
            high = middle
    return low, kept
