"""The interface between the training loop and the tasks it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from grail.data.encode import Encoded


@dataclass(frozen=True)
class StepResult:
    """What a task computes for one micro-batch.

    Attributes:
        loss: What is minimised; the losses of a step's micro-batches (over all processes) add up.
        terms: Name -> this micro-batch's share of a logged value (terms unweighted, NLL by side).
        accuracy: Row key -> token accuracy (0-1) before this step.
        ascending: Number of unlearn rows that still contribute to the loss.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    accuracy: dict[str, float]
    ascending: int = 0


def merged(results: Sequence[StepResult]) -> StepResult:
    """Add up the results of the parts of a micro-batch."""
    names = dict.fromkeys(name for part in results for name in part.terms)
    return StepResult(
        torch.stack([part.loss for part in results]).sum(),
        {
            name: torch.stack([p.terms[name] for p in results if name in p.terms]).sum()
            for name in names
        },
        {key: value for part in results for key, value in part.accuracy.items()},
        sum(part.ascending for part in results),
    )


@dataclass
class History:
    """When each row was last trained on, and its token accuracy then: a task's memory.

    Attributes:
        seen: Row key -> (epoch, token accuracy 0-1).
        planned: ``seen`` as it was when ``epoch`` began: a resumed epoch keeps its plan.
        epoch: The epoch that was planned last.
    """

    seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    planned: dict[str, tuple[int, float]] = field(default_factory=dict)
    epoch: int = -1

    def before(self, epoch: int) -> Mapping[str, tuple[int, float]]:
        """Return what had been seen when ``epoch`` began."""
        if epoch != self.epoch:
            self.planned, self.epoch = dict(self.seen), epoch
        return self.planned

    def saw(self, epoch: int, accuracies: Mapping[str, float]) -> None:
        """Remember the accuracies of a step's rows."""
        self.seen |= {key: (epoch, accuracy) for key, accuracy in accuracies.items()}

    def state(self) -> dict[str, Any]:
        """Return the history as JSON values."""
        return asdict(self)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the history that ``state`` returned."""
        self.seen, self.planned = (
            {key: (epoch, accuracy) for key, (epoch, accuracy) in state[name].items()}
            for name in ("seen", "planned")
        )
        self.epoch = state["epoch"]


@runtime_checkable
class Task(Protocol):
    """What the loop trains."""

    @property
    def history(self) -> History:
        """The task's memory: the loop tells it what it saw, and puts it into checkpoints."""
        ...

    def plan(self, epoch: int) -> list[list[Encoded]]:
        """Return the rows of each step of an epoch; no steps if nothing is left to train."""
        ...

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """Split a step's rows by the mask that applies: [(side, rows), ...] or [("", all rows)]."""
        ...

    def run(self, rows: Sequence[Encoded], step: Sequence[Encoded]) -> StepResult:
        """Compute the share of ``rows`` (a micro-batch) in the loss of ``step`` (all its rows)."""
        ...
