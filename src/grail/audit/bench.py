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
from grail.data.samples import Sample
from grail.evaluation.values import SampleValue
from grail.model.generate import Writer
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
        groups: dict[tuple[str, str, str], list[Encoded]] = {}
        for row in (*self.context.rows, *self.context.general):
            groups.setdefault((row.domain, row.side, row.part), []).append(row)
        if any(row.part == "val" for row in self.context.general):
            groups.pop(("general", "general", "train"), None)
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
        return self.context.evaluator(self.settings.generate).run(label, rows, tick)

    def read_others(
        self, label: str, samples: Mapping[str, Sample], rows: Sequence[Encoded], tick: Tick
    ) -> list[SampleValue]:
        """Measure rows that are not the run's own, with the samples that they stand for."""
        return self.context.evaluator(self.settings.generate, samples).run(label, rows, tick)

    def writer(self, batch_size: int) -> Writer:
        """Return what lets the model, as it is now, continue prompts."""
        limit = self.context.config.evaluation.max_new_tokens
        return Writer(self.context.model, self.context.tokenizer, limit, batch_size)

    def _drawn(self, group: Sequence[Encoded]) -> list[Encoded]:
        """Draw rows by the run's seed; they stay in the order of their source."""
        most = self.settings.max_rows
        if most is None or len(group) <= most:
            return list(group)
        first = group[0]
        drawn = shuffled(group, self.seed, "audit", first.domain, first.side, first.part)[:most]
        chosen = {row.key for row in drawn}
        return [row for row in group if row.key in chosen]

    def encoder(self) -> Encoder:
        """Return what turns samples into ids as the run does."""
        data = self.context.config.data
        return Encoder(self.context.tokenizer, data.template, data.max_tokens)

    @cached_property
    def texts(self) -> dict[str, Sample]:
        """All samples of the run by key."""
        inputs = self.context.inputs
        return {sample.key: sample for sample in (*inputs.samples, *inputs.general)}
