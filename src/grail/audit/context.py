"""What attacks work with: the model, the rows that are measured, and the ordinary Evaluator."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from grail.config.audit import Audit
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.data.samples import CHECK, GENERAL, grouped
from grail.evaluation.values import SampleValue
from grail.model.save import load_weights
from grail.model.weights import copy_weights
from grail.progress import Tick
from grail.run.context import RunContext


@dataclass
class AuditContext:
    """One model, whose weights are exchanged, and the rows that it is measured on.

    Attributes:
        run: Model, tokenizer and rows of the audited run.
        settings: The ``audit`` section.
        folders: Name of a model (vanilla, unlearned, oracle) -> folder of its weights.
        loaded: Name of the model whose weights are loaded; "" if none are.
    """

    run: RunContext
    settings: Audit
    folders: Mapping[str, Path]
    loaded: str = field(default="", init=False)

    @property
    def seed(self) -> int:
        """The run's seed, from which every draw of the audit comes."""
        return self.run.config.seed

    def load(self, name: str) -> None:
        """Load the weights of a model, unless they are loaded already."""
        if self.loaded != name:
            self.loaded = ""
            load_weights(self.run.model, self.folders[name])
            self.loaded = name

    def weights(self, name: str) -> dict[str, Tensor]:
        """Load a model and return copies of its trainable weights."""
        self.load(name)
        return copy_weights(self.run.model)

    @cached_property
    def rows(self) -> tuple[Encoded, ...]:
        """The rows that are measured: at most ``audit.max_rows`` of each part of each side.

        Of the general text only the held-out half, where there is one.
        """
        rows = (row for row in (*self.run.rows, *self.run.general) if row.side != CHECK)
        groups = grouped(rows, lambda row: row.place)
        if any(row.part == "val" for row in self.run.general):
            groups.pop(GENERAL, None)
        most = self.settings.max_rows
        return tuple(r for place, g in groups.items() for r in self.draw(g, most, "audit", *place))

    @property
    def attacked(self) -> list[Encoded]:
        """The rows that are measured under an attack: all of ``rows`` but those of val parts."""
        return [row for row in self.rows if row.part != "val" or row.side == GENERAL.side]

    def draw(self, rows: Sequence[Encoded], most: int | None, *words: str) -> list[Encoded]:
        """Draw at most ``most`` rows (None: all) by seed and ``words``; they keep their order."""
        drawn = {row.key for row in shuffled(rows, self.seed, *words)[:most]}
        return [row for row in rows if row.key in drawn]

    def targets(self) -> list[Encoded]:
        """Return the measured unlearn train rows: what the attacks try to bring back."""
        return [row for row in self.rows if (row.side, row.part) == ("unlearn", "train")]

    def written(self, *sides: str) -> list[Encoded]:
        """Return at most ``audit.written_rows`` measured rows of each domain of some sides.

        No val rows, except of general text.
        """
        rows = (row for row in self.attacked if row.side in sides)
        groups = grouped(rows, lambda row: row.place)
        most = self.settings.written_rows
        return [r for p, g in groups.items() for r in self.draw(g, most, "written", p.domain)]

    def all_rows(self, side: str, part: str) -> list[Encoded]:
        """Return all rows of one side and part, measured or not (``general`` is a side)."""
        rows = (*self.run.rows, *self.run.general)
        return [row for row in rows if (row.side, row.part) == (side, part)]

    def measure(self, amount: str, rows: Sequence[Encoded], tick: Tick) -> list[SampleValue]:
        """Measure the model as it is now: one teacher-forced pass; ``audit.generate`` adds text.

        ``amount`` is the strength of the attack, the label of the values.
        """
        return self.run.evaluator(self.settings.generate).run(amount, rows, tick)

    def measure_each(
        self, states: Generator[tuple[str, Sequence[Encoded]]], count: int, tick: Tick
    ) -> list[SampleValue]:
        """Measure the model in each state that a generator puts it in.

        ``states`` yields (amount, rows to measure), ``count`` times, and undoes its changes when
        closed.
        """
        values: list[SampleValue] = []
        with closing(states):
            for number, (amount, rows) in enumerate(states):
                values += self.measure(amount, rows, piece(tick, number, count))
        return values


def piece(tick: Tick, number: int, count: int) -> Tick:
    """Return the tick of the ``number``-th of ``count`` equal pieces of work."""
    return lambda done, total, note: tick(number * total + done, count * total, note)
