"""Equal retention: the largest step from vanilla to unlearned that keeps a wished RS.

A method that stops early retains more and unlearns less; methods compare only at equal retention
(the calibration of UWC, arXiv 2406.09179). Knows no rows: a callable measures.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grail.files import digest

CALIBRATED = "calibrated"
"""Name in results of the model at ``evaluation.retain_target``."""

TOLERANCE = 0.25
"""The search ends at an RS at most this much (percent) above the target."""

SEARCH = "bisection"
"""How the weight is searched; part of the model's digest, so that another search runs anew."""

MOST = 14
"""Measurements at most: both ends, and twelve that halve the interval."""


def model_digests(weights: Mapping[str, str], target: float | None) -> dict[str, str]:
    """Return one digest per evaluated model: of those on disk, vanilla and unlearned.

    With a ``target`` (``evaluation.retain_target``) the interpolated model is added.
    """
    if target is None:
        return dict(weights)
    return {**weights, CALIBRATED: digest([weights, target, SEARCH])}


def between(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], weight: float
) -> dict[str, Tensor]:
    """Return ``start + weight (end - start)`` of all tensors; at 0 and 1 exactly the ends."""
    return {name: torch.lerp(tensor, end[name], weight) for name, tensor in start.items()}


def weight_at(target: float, retain_success: Callable[[float], float]) -> tuple[float, float]:
    """Return the largest measured weight with an RS of at least ``target``, and that RS (percent).

    The weight is 1 if the unlearned model reaches the target, 0 if no other weight does. Bisection,
    because RS may be level for long and then fall within a hundredth of the interval, where methods
    that assume a straight line do not converge. ``retain_success`` returns the mean RS (percent) of
    ``vanilla + weight (unlearned - vanilla)`` for a weight from 0 to 1; it is taken to fall with
    the weight.
    """
    success = retain_success(1.0)
    if success >= target:
        return 1.0, success
    low, high, success = 0.0, 1.0, retain_success(0.0)
    for _ in range(MOST - 2):
        if success < target or success - target <= TOLERANCE:
            break
        middle = (low + high) / 2
        reached = retain_success(middle)
        if reached >= target:
            low, success = middle, reached
        else:
            high = middle
    return low, success
