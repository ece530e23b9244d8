"""The vanilla model: trained on both sides of all domains until it knows them.

Plain descent; what is unlearned later must first be known, or its absence proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grail.config.run import Vanilla
from grail.data.batches import collate, shuffled
from grail.data.encode import Encoded
from grail.model.answers import answers_of, mean_per_row, together
from grail.model.forward import Policy, device_of
from grail.training.optimizer import Settings
from grail.training.task import StepResult, merged

REST = 2
"""Epochs that a row rests after all its tokens were right."""


@dataclass(frozen=True)
class VanillaTask:
    """What the loop trains before Stage 1.

    Attributes:
        model: The model.
        rows: Rows of all sides and domains.
        settings: The ``vanilla`` section.
        seed: Fixes the order of rows.
        pad: Padding token id.
    """

    model: Policy
    rows: tuple[Encoded, ...]
    settings: Vanilla
    seed: int
    pad: int

    def plan(self, epoch: int, seen: Mapping[str, tuple[int, float]]) -> list[list[Encoded]]:
        """Return the steps of an epoch; none once every side is known.

        A side is known when the mean token accuracy of its rows, as last seen, has reached
        ``vanilla.until``. A row whose tokens were all right rests for two epochs.
        """
        if self._known(seen):
            return []
        due = [r for r in self.rows if not _rests(r, epoch, seen)]
        order = shuffled(due, self.seed, "vanilla", epoch)
        size = self.settings.batch_size
        return [order[i : i + size] for i in range(0, len(order), size)]

    def _known(self, seen: Mapping[str, tuple[int, float]]) -> bool:
        sides: dict[tuple[str, str, str], list[float]] = {}
        for row in self.rows:
            accuracy = seen[row.key][1] if row.key in seen else 0.0
            sides.setdefault((row.domain, row.side, row.part), []).append(accuracy)
        return all(sum(own) / len(own) >= self.settings.until for own in sides.values())

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """All rows in one: nothing is masked."""
        return [("", list(rows))]

    def run(
        self, rows: Sequence[Encoded], step: Sequence[Encoded], seen: Mapping[str, object]
    ) -> StepResult:
        """Return the share of ``rows`` in the mean over ``step`` of the mean token NLL."""
        del seen
        return merged([self._share(part, len(step)) for part in together(self.model, rows)])

    def _share(self, rows: Sequence[Encoded], count: int) -> StepResult:
        answers = answers_of(self.model, collate(rows, self.pad, device_of(self.model)))
        loss = mean_per_row(answers.nll, answers.lengths).sum() / count
        accuracy = dict(zip((r.key for r in rows), answers.accuracy.tolist(), strict=True))
        return StepResult(loss, {"nll": loss.detach()}, accuracy)


def _rests(row: Encoded, epoch: int, seen: Mapping[str, tuple[int, float]]) -> bool:
    if row.key not in seen:
        return False
    when, accuracy = seen[row.key]
    return accuracy == 1.0 and epoch - when <= REST


def loop_settings(settings: Vanilla, seed: int) -> Settings:
    """Return what the loop needs to know of the ``vanilla`` section."""
    return Settings(
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        seed=seed,
        max_grad_norm=settings.max_grad_norm,
        checkpoint_steps=settings.checkpoint_steps,
    )
