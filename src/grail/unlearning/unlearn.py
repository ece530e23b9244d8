"""Stage 3: objective + mask + data -> train().

Plans balanced steps over sides and domains, and decides which rows still ascend.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from grail.answers import answers_of
from grail.config import Unlearning
from grail.data.encode import Encoded, by_length, collate, shuffled
from grail.errors import InputError
from grail.model import Policy, device_of
from grail.optimization import Settings
from grail.task import Outcome, merged
from grail.unlearning.losses import nll
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

        An epoch sees each unlearn row once, the domains in turn; the step that holds it also holds
        a retain row of the same domain, if the objective reads them.
        """
        done = self._forgotten(seen)
        known = {key: accuracy for key, (_, accuracy) in seen.items()}
        unlearn = self._in_turn(epoch)
        if epoch and not any(self._ascends(row, known, done) for row in unlearn):
            return []
        retain = {domain: self._cycle("retain", domain, epoch) for domain in self._domains()}
        steps = []
        for first in range(0, len(unlearn), self.settings.batch_size):
            own = unlearn[first : first + self.settings.batch_size]
            other = [next(retain[row.domain]) for row in own] if "retain" in self.sides else []
            steps.append([*own, *other])
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
        return merged([self._share(part, step, seen) for part in by_length(rows)])

    def _share(self, rows: Sequence[Encoded], step: Sequence[Encoded], seen: Seen) -> Outcome:
        answers = answers_of(self.model, collate(rows, self.pad, device_of(self.model)))
        accuracy = dict(zip((r.key for r in rows), answers.accuracy.tolist(), strict=True))
        done = self._forgotten(seen)
        active = [self._ascends(row, accuracy, done) for row in rows]
        loss, plain = answers.nll.new_zeros(()), nll(answers)
        log: dict[str, Tensor] = {}
        for term in self.terms:
            share = self._shares(rows, step, term.side).to(loss.device)
            on = share * torch.tensor(active, device=share.device) if term.weight < 0 else share
            value = term.loss(answers)
            loss = loss + term.weight * (on * value).sum()
            log[f"{term.side}/nll"] = (share * plain.detach()).sum()
            log[term.name] = (share * value.detach()).sum()
        ascending = sum(a for a, r in zip(active, rows, strict=True) if r.side == "unlearn")
        return Outcome(loss, log, accuracy, ascending)

    def _shares(self, rows: Sequence[Encoded], step: Sequence[Encoded], side: str) -> Tensor:
        """1 / (rows of this side in the whole step) for rows of the side, else 0."""
        count = sum(row.side == side for row in step)
        return torch.tensor([(row.side == side) / max(1, count) for row in rows])

    def _domains(self) -> list[str]:
        return list(dict.fromkeys(row.domain for row in self.rows))

    def _of(self, side: str, domain: str) -> list[Encoded]:
        return [row for row in self.rows if (row.side, row.domain) == (side, domain)]

    def _in_turn(self, epoch: int) -> list[Encoded]:
        """All unlearn rows once; domains of unequal size are spread evenly over the epoch.

        Repeating the rows of a small domain until the largest is through would unlearn them more
        often than the others, so a step holds the domains in the proportion of their rows.
        """
        places: list[tuple[float, Encoded]] = []
        for domain in self._domains():
            rows = len(self._of("unlearn", domain))
            own = zip(range(rows), self._cycle("unlearn", domain, epoch), strict=False)
            places += [((i + 0.5) / rows, row) for i, row in own]
        return [row for _, row in sorted(places, key=lambda place: place[0])]

    def _cycle(self, side: str, domain: str, epoch: int) -> Iterator[Encoded]:
        """Rows of a side and domain without end, shuffled anew on every lap."""
        own = self._of(side, domain)
        for lap in count():
            yield from shuffled(own, self.seed, "unlearn", side, domain, epoch, lap)

    def _forgotten(self, seen: Seen) -> set[str]:
        """Domains whose rows, as last seen before this step, have a low enough mean accuracy.

        Not counting the rows of the step itself: what is known of them depends on the micro-batch
        and the process.
        """
        limit = self.settings.until.domain_accuracy
        if limit is None:
            return set()
        means = {}
        for domain in self._domains():
            own = [seen.get(row.key, (0, math.inf))[1] for row in self._of("unlearn", domain)]
            means[domain] = sum(own) / max(1, len(own))
        return {domain for domain, mean in means.items() if mean <= limit}

    def _ascends(self, row: Encoded, known: Mapping[str, float], done: Collection[str]) -> bool:
        """Tell whether a row's ascent goes on: neither the row nor its domain is forgotten."""
        if row.side != "unlearn":
            return True
        limit = self.settings.until.row_accuracy
        low = limit is not None and known.get(row.key, math.inf) <= limit
        return not low and row.domain not in done


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
