"""Stage 1: how important is each entry for one side of one domain (paper, Eq. 3).

Knows labels and gradients; knows nothing of thresholds, masks or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from grail.artifacts import STATISTICS, Scores
from grail.config.run import Importance
from grail.data.batches import Batch, by_tokens, collate
from grail.data.encode import Encoded
from grail.data.labels import RandomLabels
from grail.importance.expected import ExpectedNll
from grail.importance.gradients import TokenLoss, add_by_batch, add_by_loop, nll_of_targets
from grail.importance.kernel_choice import fused_for
from grail.importance.sums import Sums, passes
from grail.model.forward import Policy, device_of, trainable
from grail.progress import Tick, silent


@dataclass(frozen=True)
class Scorer:
    """Scores rows of one side: what is drawn, how often, in which batches.

    Attributes:
        model: The model; its trainable parameters are scored.
        settings: The ``importance`` section.
        labels: Where random labels come from, or would (unused for ``labels: true``).
        pad: Padding token id.
    """

    model: Policy
    settings: Importance
    labels: RandomLabels
    pad: int

    def check(self) -> None:
        """Refuse settings that this model cannot be scored with.

        Raises:
            InputError: naming the setting to change.
        """
        passes(trainable(self.model), self.settings.memory_gib)
        fused_for(self.settings.kernel, device_of(self.model))

    def score(self, rows: Sequence[Encoded], tick: Tick = silent) -> Scores:
        """Return the statistics over ``rows``; every trial of a sample counts in its mean.

        Raises:
            InputError: if the model cannot be scored with these settings.
        """
        groups = passes(trainable(self.model), self.settings.memory_gib)
        statistics: dict[str, dict[str, Tensor]] = {name: {} for name in STATISTICS}
        for done, parameters in enumerate(groups):
            before = done * len(rows)

            def on(scored: int, before: int = before) -> None:
                tick(before + scored, len(rows) * len(groups), "rows scored")

            found = self._pass(rows, Sums.zeros(parameters), on)
            for name, values in statistics.items():
                values.update(getattr(found, name))
        return Scores(**statistics, samples=len(rows))

    def _pass(self, rows: Sequence[Encoded], sums: Sums, on: Callable[[int], None]) -> Scores:
        """Return the statistics of the parameters that ``sums`` holds."""
        loop = self.settings.gradients == "loop"
        fused = None if loop else fused_for(self.settings.kernel, device_of(self.model))
        for group in [[r] for r in rows] if loop else self._groups(rows):
            if loop:
                drawn = [self._batch([trial]) for trial in self._trials(group[0])]
                add_by_loop(self.model, drawn, sums, self._loss)
            else:
                copies = [trial for row in group for trial in self._trials(row)]
                add_by_batch(self.model, self._batch(copies), self.trials, sums, self._loss, fused)
            on(sums.samples)
        return sums.scores()

    @property
    def trials(self) -> int:
        """Trials per sample; true and expected labels do not vary, so one is enough."""
        return self.settings.trials if self.settings.labels == "random" else 1

    @property
    def _loss(self) -> TokenLoss:
        expected = self.settings.labels == "expected"
        return ExpectedNll(self.labels) if expected else nll_of_targets

    def _groups(self, rows: Sequence[Encoded]) -> list[list[Encoded]]:
        return by_tokens(rows, self.settings.batch_tokens, copies=self.trials)

    def _trials(self, row: Encoded) -> list[Encoded]:
        if self.settings.labels != "random":
            return [row]
        return [self.labels.draw(row, trial) for trial in range(self.trials)]

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self.pad, device_of(self.model))
