"""How far to go back towards the vanilla model until retention is as wished.

A method that stops early keeps more and unlearns less; only at equal retention do methods compare
(the calibration of UWC, arXiv 2406.09179). Knows no rows: a callable measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = 0.25
"""Percent of RS that the found model may keep more than was wished for."""

MOST = 6
"""Measurements at most: with each the bracket shrinks to half or less."""


@dataclass(frozen=True)
class Way:
    """The straight line from one model's weights to another's.

    Attributes:
        parameters: The model's parameters, into which a point of the line is put.
        start: The weights at 0.
        end: The weights at 1.
    """

    parameters: Mapping[str, nn.Parameter]
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]

    @torch.no_grad()
    def put(self, weight: float) -> None:
        """Let the model be ``start + weight (end - start)``; at 0 and 1 exactly the ends."""
        for name, parameter in self.parameters.items():
            parameter.copy_(torch.lerp(self.start[name], self.end[name], weight))


def weight_at(target: float, retain_success: Callable[[float], float]) -> float:
    """Return the largest weight found at which the mean RS is still ``target`` percent.

    Args:
        target: RS in percent.
        retain_success: Weight -> mean RS in percent of ``vanilla + weight (unlearned - vanilla)``;
            taken to fall with the weight.

    1 if the unlearned model itself keeps as much; 0 if no other weight that was tried does.
    """
    high = retain_success(1.0)
    if high >= target:
        return 1.0
    low, above = 0.0, retain_success(0.0)
    upper = 1.0
    for _ in range(MOST - 2):
        if not target < above or above - target <= TOLERANCE:
            break
        share = (above - target) / (above - high)  # where a straight line would meet the target
        middle = low + (upper - low) * min(0.75, max(0.25, share))
        found = retain_success(middle)
        if found >= target:
            low, above = middle, found
        else:
            upper, high = middle, found
    return low
