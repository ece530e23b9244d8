"""Ordinary training on the mean NLL of some rows, until they are known.

It makes the vanilla model (what is unlearned must first be known, or its absence proves nothing),
the retrained oracle, and the relearning attack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grail.data.batches import collate, shuffled
from grail.data.encode import Encoded
from grail.model.answers import answers_of, mean_per_row, together
from grail.model.forward import Policy, device_of
from grail.training.task import History, StepResult, merged

REST = 2
"""Epochs that a row is skipped after all its tokens were right."""


@dataclass(frozen=True)
class DescentTask:
    """Gradient descent on the mean over rows of the mean token NLL.

    Attributes:
        model: The model.
        rows: Rows of any domains and sides.
        pad: Padding token id.
        seed: Fixes the order of rows.
        batch_size: Rows per step.
        until: Training ends when the mean token accuracy (0-1) of every side of every domain is at
            least this.
        history: Accuracies as last seen.
    """

    model: Policy
    rows: tuple[Encoded, ...]
    pad: int
    seed: int = 0
    batch_size: int = 16
    until: float = 0.99
    history: History = field(default_factory=History)

    def plan(self, epoch: int) -> list[list[Encoded]]:
        """Return the steps of an epoch; none once every side is known.

        A row whose tokens were all right is skipped for ``REST`` epochs.
        """
        seen = self.history.before(epoch)
        accuracies: dict[tuple[str, str, str], list[float]] = {}
        for row in self.rows:
            accuracy = seen[row.key][1] if row.key in seen else 0.0
            accuracies.setdefault((row.domain, row.side, row.part), []).append(accuracy)
        if all(sum(values) / len(values) >= self.until for values in accuracies.values()):
            return []
        due = [row for row in self.rows if not _rests(row, epoch, seen)]
        order = shuffled(due, self.seed, "vanilla", epoch)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """Return all rows in one group: descent has no sides."""
        return [("", list(rows))]

    def run(self, rows: Sequence[Encoded], step: Sequence[Encoded]) -> StepResult:
        """Return the share of ``rows`` in the mean over ``step`` of the mean token NLL."""
        results = []
        for group in together(self.model, rows):
            answers = answers_of(self.model, collate(group, self.pad, device_of(self.model)))
            loss = mean_per_row(answers.nll, answers.lengths).sum() / len(step)
            accuracy = dict(zip((r.key for r in group), answers.accuracy.tolist(), strict=True))
            results.append(StepResult(loss, {"nll": loss.detach()}, accuracy))
        return merged(results)


def _rests(row: Encoded, epoch: int, seen: Mapping[str, tuple[int, float]]) -> bool:
    if row.key not in seen:
        return False
    last, accuracy = seen[row.key]
    return accuracy == 1.0 and epoch - last <= REST
