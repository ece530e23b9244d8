"""Stage 3: objective + mask + data -> train().

Plans balanced steps over sides and domains, and decides which rows still ascend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from grail.config import Unlearning, Until
from grail.data.encode import Encoded, collate, shuffled
from grail.errors import InputError
from grail.model import Policy, answer_logits, device_of
from grail.optimization import Settings
from grail.train import Outcome
from grail.unlearning.losses import nll, read_answers
from grail.unlearning.objectives import Term

Seen = Mapping[str, tuple[int, float]]
"""Row key -> (epoch, token accuracy 0-1) when last seen."""


@dataclass(frozen=True)
class UnlearnTask:
    """What the loop trains in Stage 3.

    Attributes:
        model: The model being unlearned.
        rows: Train rows of all domains and sides.
        terms: The objective.
        settings: The ``unlearning`` section.
        by_side: Whether the mask differs by side, so that each side needs a backward of its own.
        seed: Fixes the order of rows.
        pad: Padding token id.
    """

    model: Policy
    rows: tuple[Encoded, ...]
    terms: tuple[Term, ...]
    settings: Unlearning
    by_side: bool
    seed: int
    pad: int

    def plan(self, epoch: int, seen: Seen) -> list[list[Encoded]]:
        """Return the steps of an epoch; none once every unlearn row counts as forgotten.

        Every step holds ``batch_size`` rows of each side the objective reads, taken from the
        domains in turn; an epoch sees each unlearn row once, and as many retain rows.
        """
        unlearn = self._of("unlearn")
        if epoch and not any(_ascends(row, seen, self.settings.until, unlearn) for row in unlearn):
            return []
        count, size = len(unlearn), self.settings.batch_size
        streams = {side: self._stream(side, epoch) for side in self.sides}
        steps = []
        for first in range(0, count, size):
            width = min(size, count - first)
            steps.append([next(streams[side]) for side in self.sides for _ in range(width)])
        return steps

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that the objective reads, each once."""
        return tuple(dict.fromkeys(term.side for term in self.terms))

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """Split a step by side where the mask asks for it."""
        if not self.by_side:
            return [("", list(rows))]
        return [(side, [r for r in rows if r.side == side]) for side in self.sides]

    def run(self, rows: Sequence[Encoded], step: Sequence[Encoded], seen: Seen) -> Outcome:
        """Return the share of ``rows`` in the loss of ``step``; see Outcome."""
        batch = collate(rows, self.pad, device_of(self.model))
        logits = answer_logits(self.model, batch.ids, batch.attention, batch.at)
        lengths = torch.tensor(batch.lengths, device=logits.device)
        answers = read_answers(logits, batch.targets[batch.at], lengths)
        accuracy = dict(zip((r.key for r in rows), answers.accuracy.tolist(), strict=True))
        now = {**seen, **{key: (0, value) for key, value in accuracy.items()}}
        unlearn = self._of("unlearn")
        active = [_ascends(r, now, self.settings.until, unlearn) for r in rows]
        loss = logits.sum() * 0.0  # a graph even where no term reads a row of this micro-batch
        log: dict[str, Tensor] = {}
        plain = nll(answers)
        for term in self.terms:
            share = self._shares(rows, step, term.side).to(logits.device)
            on = share * torch.tensor(active, device=share.device) if term.weight < 0 else share
            loss = loss + term.weight * (on * term.loss(answers)).sum()
            log[f"{term.side}/nll"] = (share * plain.detach()).sum()
        ascending = sum(a for a, r in zip(active, rows, strict=True) if r.side == "unlearn")
        return Outcome(loss, log, accuracy, ascending)

    def _shares(self, rows: Sequence[Encoded], step: Sequence[Encoded], side: str) -> Tensor:
        """1 / (rows of this side in the whole step) for rows of the side, else 0."""
        count = sum(row.side == side for row in step)
        return torch.tensor([(row.side == side) / max(1, count) for row in rows])

    def _of(self, side: str) -> list[Encoded]:
        return [row for row in self.rows if row.side == side]

    def _stream(self, side: str, epoch: int) -> Iterator[Encoded]:
        """Rows of a side without end, the domains in turn, each domain in a shuffled order."""
        domains = list(dict.fromkeys(row.domain for row in self.rows))
        cycles = [self._cycle(side, domain, epoch) for domain in domains]
        return chain.from_iterable(zip(*cycles, strict=True))

    def _cycle(self, side: str, domain: str, epoch: int) -> Iterator[Encoded]:
        own = [row for row in self._of(side) if row.domain == domain]
        lap = 0
        while True:
            yield from shuffled(own, self.seed, "unlearn", side, domain, epoch, lap)
            lap += 1


def _ascends(row: Encoded, seen: Seen, until: Until, unlearn: Sequence[Encoded]) -> bool:
    """Tell whether a row's ascent goes on: neither the row nor its domain counts as forgotten."""
    if row.side != "unlearn" or row.key not in seen:
        return True
    if until.row_accuracy is not None and seen[row.key][1] <= until.row_accuracy:
        return False
    if until.domain_accuracy is None:
        return True
    own = [seen[r.key][1] for r in unlearn if r.domain == row.domain and r.key in seen]
    everything = sum(r.domain == row.domain for r in unlearn)
    return len(own) < everything or sum(own) / len(own) > until.domain_accuracy


def loop_settings(settings: Unlearning, seed: int) -> Settings:
    """Return what the loop needs to know of the ``unlearning`` section."""
    if settings.objective == "ascent_descent" and not settings.retain_weight:
        raise InputError("unlearning.retain_weight: 0 turns ascent_descent into ascent: say so.")
    return Settings(
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        seed=seed,
        schedule=settings.schedule,
        warmup=settings.warmup,
        optimizer=settings.optimizer,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        accumulation=settings.accumulation,
        checkpoint_steps=settings.checkpoint_steps,
    )
