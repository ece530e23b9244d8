"""Stage 3: objective + mask + data -> train().

Plans balanced steps over sides and domains, and decides which rows are still to be unlearned.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from grail.config.run import Unlearning
from grail.data.batches import Batch, collate, shuffled
from grail.data.encode import Encoded
from grail.data.substitutes import Substitute, truth
from grail.model.answers import Answers, answers_of, mean_per_row, reference_logits, together
from grail.model.forward import Policy, device_of
from grail.model.weights import Weights
from grail.training.optimizer import Settings
from grail.training.task import StepResult, merged
from grail.unlearning.losses import nll
from grail.unlearning.objectives import Objective

Seen = Mapping[str, tuple[int, float]]
"""Row key -> (epoch, token accuracy 0-1) when last seen."""


@dataclass(frozen=True)
class UnlearnTask:
    """What the loop trains in Stage 3.

    Attributes:
        model: The model being unlearned.
        rows: Train rows of all domains and sides, and general rows where the objective reads them.
        objective: The weighted terms.
        settings: The ``unlearning`` section.
        split: Whether each side needs a backward pass of its own (a mask or a rule by side).
        seed: Fixes the order of rows.
        pad: Padding token id.
        reference: The model before unlearning, where a term compares with it.
        substitute: What unlearn rows must say instead of the truth.
    """

    model: Policy
    rows: tuple[Encoded, ...]
    objective: Objective
    settings: Unlearning
    split: bool
    seed: int
    pad: int
    reference: Weights | None = None
    substitute: Substitute = truth

    def plan(self, epoch: int, seen: Seen) -> list[list[Encoded]]:
        """Return the steps of an epoch; none once every unlearn row counts as unlearned.

        An epoch sees each unlearn row of the phase's domains once, the domains in turn; the step
        that holds it also holds a retain row of the same domain, and general rows, if the objective
        reads them. A row that was unlearned in the epoch before rests for one epoch, so that steps
        go to what is still remembered; the retain rows stay those of all domains in turn.
        """
        domains, first = self._phase(epoch)
        done = self._forgotten(seen)
        known = {key: accuracy for key, (_, accuracy) in seen.items()}
        everything = self._in_turn(domains, epoch)
        ended = (
            [] if epoch == first else [r for r in everything if not self._goes_on(r, known, done)]
        )
        if len(ended) == len(everything):
            return []
        resting = {row.key for row in ended if seen[row.key][0] == epoch - 1}
        unlearn = [row for row in everything if row.key not in resting]
        retain = {domain: self._cycle("retain", domain, epoch) for domain in domains}
        general, sides = self._cycle("general", "general", epoch), self.objective.sides
        steps = []
        for start in range(0, len(unlearn), self.settings.batch_size):
            own = unlearn[start : start + self.settings.batch_size]
            turns = everything[start : start + len(own)]
            kept = [next(retain[row.domain]) for row in turns if "retain" in sides]
            every = 2 if kept else 1  # beside the domains' rows, half as many will do
            apart = [next(general) for _ in own[::every] if "general" in sides]
            steps.append([*own, *kept, *apart])
        return steps

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """Split a step into unlearn rows and the others, where a mask or a rule asks for it."""
        if not self.split:
            return [("", list(rows))]
        own = [row for row in rows if row.side == "unlearn"]
        return [("unlearn", own), ("retain", [row for row in rows if row.side != "unlearn"])]

    def run(self, rows: Sequence[Encoded], step: Sequence[Encoded], seen: Seen) -> StepResult:
        """Return the share of ``rows`` in the loss of ``step``; see Outcome."""
        read = [row for row in rows if row.side in self.objective.sides]
        parts = []
        for group in together(self.model, read):
            parts += [self._share(own, answers, step, seen) for own, answers in self._read(group)]
        return merged(parts)

    def _share(
        self, rows: Sequence[Encoded], answers: Answers, step: Sequence[Encoded], seen: Seen
    ) -> StepResult:
        """Return the share of some rows of one side."""
        side = rows[0].side
        accuracy = self._accuracy(rows, answers)
        share = 1 / sum(row.side == side for row in step)
        done = self._forgotten(seen)
        active = [self._goes_on(row, accuracy, done) for row in rows]
        on = torch.tensor(active, device=answers.logits.device)
        loss = answers.nll.new_zeros(())
        log: dict[str, Tensor] = {f"{side}/nll": share * nll(answers).detach().sum()}
        for term in self.objective.terms:
            if term.side == side:
                value = term.loss(answers)
                loss = loss + term.weight * share * torch.where(on, value, 0.0).sum()
                log[term.name] = share * value.detach().sum()
        return StepResult(loss, log, accuracy, sum(active) if side == "unlearn" else 0)

    def _read(self, rows: Sequence[Encoded]) -> Iterator[tuple[list[Encoded], Answers]]:
        """Run the model once over rows of all sides; yield each side's rows and answers."""
        sides = [[r for r in rows if r.side == side] for side in self.objective.sides]
        sides = [own for own in sides if own]
        answers = answers_of(self.model, self._batch([row for own in sides for row in own]))
        for own, part in zip(sides, answers.split([len(own) for own in sides]), strict=True):
            if self.reference is not None and self.objective.compares(own[0].side):
                compared = reference_logits(self.model, self._batch(own), self.reference)
                part = replace(part, reference=compared)
            yield own, part

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        return collate([self._said(row) for row in rows], self.pad, device_of(self.model))

    def _said(self, row: Encoded) -> Encoded:
        """What the model reads for a row: unlearn rows may say something else than the truth."""
        return self.substitute(row) if row.side == "unlearn" else row

    def _accuracy(self, rows: Sequence[Encoded], answers: Answers) -> dict[str, float]:
        """Return each row's token accuracy on the true answer."""
        device = answers.logits.device
        if all(self._said(row).ids == row.ids for row in rows):
            true = torch.tensor([token for row in rows for token in row.answer], device=device)
            right = mean_per_row((answers.guesses == true).float(), answers.lengths)
        else:  # the model read something else than the truth: ask it once more
            with torch.no_grad():
                right = answers_of(self.model, collate(rows, self.pad, device)).accuracy
        return dict(zip((row.key for row in rows), right.tolist(), strict=True))

    # -- which rows, when ----------------------------------------------------------------------

    def _phase(self, epoch: int) -> tuple[list[str], int]:
        """Return the domains that an epoch unlearns, and the first epoch of its phase."""
        domains = list(dict.fromkeys(row.domain for row in self.rows if row.side == "unlearn"))
        if self.settings.phases is None:
            return domains, 0
        number = epoch // self.settings.epochs
        return list(self.settings.phases[number]), number * self.settings.epochs

    def _of(self, side: str, domain: str) -> list[Encoded]:
        return [row for row in self.rows if (row.side, row.domain) == (side, domain)]

    def _in_turn(self, domains: Sequence[str], epoch: int) -> list[Encoded]:
        """All unlearn rows once; domains of unequal size are spread evenly over the epoch.

        Repeating the rows of a small domain until the largest is through would unlearn them more
        often than the others, so a step holds the domains in the proportion of their rows.
        """
        places: list[tuple[float, Encoded]] = []
        for domain in domains:
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
        for domain in dict.fromkeys(row.domain for row in self.rows if row.side == "unlearn"):
            own = [seen.get(row.key, (0, math.inf))[1] for row in self._of("unlearn", domain)]
            means[domain] = sum(own) / max(1, len(own))
        return {domain for domain, mean in means.items() if mean <= limit}

    def _goes_on(self, row: Encoded, known: Mapping[str, float], done: Collection[str]) -> bool:
        """Tell whether a row's term still counts: neither it nor its domain is unlearned."""
        if row.side != "unlearn":
            return True
        limit = self.settings.until.row_accuracy
        low = limit is not None and known.get(row.key, math.inf) <= limit
        return not low and row.domain not in done


def loop_settings(settings: Unlearning, seed: int) -> Settings:
    """Return what the loop needs to know of the ``unlearning`` section."""
    phases = len(settings.phases or [()])
    return Settings(
        learning_rate=settings.learning_rate,
        epochs=settings.epochs * phases,
        cycles=phases,
        seed=seed,
        schedule=settings.schedule,
        warmup=settings.warmup,
        optimizer=settings.optimizer,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        accumulation=settings.accumulation,
        checkpoint_steps=settings.checkpoint_steps,
        rectify=settings.rectify,
    )
