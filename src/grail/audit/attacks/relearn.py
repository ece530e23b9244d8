"""Ordinary descent on a few rows, with measurements on the way: how fast does it come back?

The attacker knows nothing of how the model was unlearned; the loop is that of the vanilla stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from accelerate import Accelerator

from grail.config.run import Vanilla
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.model.forward import Policy, in_mode, trainable
from grail.model.weights import copy_weights, holding
from grail.progress import Tick, silent
from grail.training.descent import VanillaTask
from grail.training.loop import Loop, LoopFiles
from grail.training.optimizer import Settings
from grail.training.task import StepResult

NEVER = 2**31

T = TypeVar("T")


@dataclass(frozen=True)
class Descent:
    """How the attacker steps.

    Attributes:
        learning_rate: Of AdamW, constant.
        batch_size: Rows a step.
        points: After how many steps is measured, ascending; the last is where it ends.
        seed: Fixes the order of rows.
        pad: Padding token id.
    """

    learning_rate: float
    batch_size: int
    points: tuple[int, ...]
    seed: int
    pad: int


@dataclass(frozen=True)
class RelearnTask:
    """Exactly as many steps as asked for: the rows again and again, each time in another order."""

    descent: VanillaTask
    steps: int

    def plan(self, epoch: int, seen: Mapping[str, tuple[int, float]]) -> list[list[Encoded]]:
        """Return all steps; a row that is known is not spared."""
        del seen
        rows, size = self.descent.rows, self.descent.settings.batch_size
        found: list[list[Encoded]] = []
        passes = 0
        while len(found) < self.steps:
            order = shuffled(rows, self.descent.seed, "relearn", epoch, passes)
            found += [order[first : first + size] for first in range(0, len(order), size)]
            passes += 1
        return found[: self.steps]

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """All rows in one: nothing is masked."""
        return self.descent.groups(rows)

    def run(
        self, rows: Sequence[Encoded], step: Sequence[Encoded], seen: Mapping[str, Any]
    ) -> StepResult:
        """Return the share of ``rows`` in the mean over ``step`` of the mean token NLL."""
        return self.descent.run(rows, step, seen)


def relearn(
    model: Policy,
    rows: Sequence[Encoded],
    how: Descent,
    accelerator: Accelerator,
    measure: Callable[[int], T],
    tick: Tick = silent,
) -> list[T]:
    """Train on ``rows`` and return what ``measure(steps)`` said at every point.

    The model is as before afterwards, to the bit.

    Raises:
        DivergenceError: if the descent stopped being finite.
    """
    settings = Vanilla(learning_rate=how.learning_rate, batch_size=how.batch_size)
    task = RelearnTask(VanillaTask(model, tuple(rows), settings, how.seed, how.pad), how.points[-1])
    steps = Settings(how.learning_rate, epochs=1, seed=how.seed, checkpoint_steps=NEVER)
    found: list[T] = []

    def after(done: int, total: int, note: str) -> None:
        tick(done, total, note)
        if done in how.points:
            found.append(measure(done))

    copies = copy_weights(model)
    with TemporaryDirectory() as folder, holding(model, copies), in_mode(model, True):
        place = LoopFiles(Path(folder) / "log.jsonl", Path(folder) / "checkpoint", "")
        Loop(trainable(model), task, None, steps, accelerator).run(place, after)
    return found


def area(points: Mapping[int, float]) -> float:
    """Return the mean height of a curve over its steps: trapezoids, divided by their width.

    Args:
        points: Steps -> height; two points or more.
    """
    steps = sorted(points)
    under = sum((b - a) * (points[a] + points[b]) / 2 for a, b in pairwise(steps))
    return under / (steps[-1] - steps[0])
