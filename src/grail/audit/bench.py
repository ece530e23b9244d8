"""What attacks need at hand: the model, the chosen rows, the ordinary Evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from accelerate import Accelerator
from torch import Tensor

from grail.config.audit import Audit
from grail.data.batches import shuffled
from grail.data.encode import Encoded, Encoder
from grail.data.samples import GENERAL, Place
from grail.evaluation.evaluate import Evaluator, SampleValue
from grail.model.generate import TextGenerator
from grail.progress import Tick
from grail.run.context import RunContext


@dataclass
class Bench:
    """One model to work on, and the rows it is measured on.

    Attributes:
        context: Model, tokenizer and rows of the run; the model holds what is attacked now.
        settings: The ``audit`` section.
        accelerator: What relearning trains with.
        ends: Name of a model -> copies of its trainable weights; the model then holds them.
    """

    context: RunContext
    settings: Audit
    accelerator: Accelerator
    ends: Callable[[str], Mapping[str, Tensor]]

    @property
    def seed(self) -> int:
        """The run's seed, from which every draw of the audit comes."""
        return self.context.config.seed

    @cached_property
    def rows(self) -> tuple[Encoded, ...]:
        """The rows that are measured: at most ``audit.max_rows`` of each part of each side.

        Of the general text only the held-out half, where there is one.
        """
        groups: dict[Place, list[Encoded]] = {}
        for row in (*self.context.rows, *self.context.general):
            groups.setdefault(row.place, []).append(row)
        if any(row.part == "val" for row in self.context.general):
            groups.pop(GENERAL, None)
        return tuple(row for group in groups.values() for row in self._drawn(group))

    def targets(self) -> tuple[Encoded, ...]:
        """Return the measured unlearn train rows: what relearning wants back."""
        return tuple(row for row in self.rows if (row.side, row.part) == ("unlearn", "train"))

    def given(self, side: str, part: str) -> list[Encoded]:
        """Return all rows of one side and part, of all domains (``general`` is a side)."""
        known = (*self.context.rows, *self.context.general)
        return [row for row in known if (row.side, row.part) == (side, part)]

    def read(self, label: str, rows: Sequence[Encoded], tick: Tick) -> list[SampleValue]:
        """Measure the model as it is now: one teacher-forced pass, no generation unless asked."""
        settings = self.context.config.evaluation
        quick = settings.model_copy(update={"generate": self.settings.generate})
        return Evaluator(self.context.model, self.context.tokenizer, quick).run(label, rows, tick)

    def generator(self, batch_size: int) -> TextGenerator:
        """Return a text generator for the model as it is now."""
        limit = self.context.config.evaluation.max_new_tokens
        return TextGenerator(self.context.model, self.context.tokenizer, limit, batch_size)

    def _drawn(self, group: Sequence[Encoded]) -> list[Encoded]:
        """Draw rows by the run's seed; they stay in the order of their source."""
        most = self.settings.max_rows
        if most is None or len(group) <= most:
            return list(group)
        drawn = shuffled(group, self.seed, "audit", *group[0].place)[:most]
        chosen = {row.key for row in drawn}
        return [row for row in group if row.key in chosen]

    def encoder(self) -> Encoder:
        """Return what turns samples into ids as the run does."""
        data = self.context.config.data
        return Encoder(self.context.tokenizer, data.template, data.max_tokens)
