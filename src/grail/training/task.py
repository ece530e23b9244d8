"""What a training loop is given to train: the agreement between the loop and its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Row = Any
"""A row as the task understands it; the loop only splits and passes it on."""


@dataclass(frozen=True)
class StepResult:
    """What a task says about one micro-batch.

    Attributes:
        loss: What is minimised; the micro-batches of a step (over all processes) add up.
        terms: Name -> the share of a logged value (each term, unweighted; the NLL of each side).
        accuracy: Row key -> token accuracy (0-1) before this step.
        ascending: Rows whose ascent goes on.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    accuracy: dict[str, float]
    ascending: int = 0


def merged(outcomes: Sequence[StepResult]) -> StepResult:
    """Add up the outcomes of the parts of a micro-batch."""
    names = dict.fromkeys(name for part in outcomes for name in part.terms)
    return StepResult(
        torch.stack([part.loss for part in outcomes]).sum(),
        {
            name: torch.stack([p.terms[name] for p in outcomes if name in p.terms]).sum()
            for name in names
        },
        {key: value for part in outcomes for key, value in part.accuracy.items()},
        sum(part.ascending for part in outcomes),
    )


@runtime_checkable
class Task(Protocol):
    """What is trained, as the loop sees it."""

    def plan(self, epoch: int, seen: Mapping[str, tuple[int, float]]) -> list[list[Row]]:
        """Return the rows of each step of an epoch; no steps: nothing is left to do in it."""
        ...

    def groups(self, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
        """Split a step's rows by the mask that applies: [(side, rows)] or [("", all rows)]."""
        ...

    def run(self, rows: Sequence[Row], step: Sequence[Row], seen: Mapping[str, Any]) -> StepResult:
        """Compute the share of ``rows`` (a micro-batch) in the loss of ``step`` (all its rows)."""
        ...
