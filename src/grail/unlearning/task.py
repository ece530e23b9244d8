"""Stage 3: which rows a step holds, their loss, and when a row counts as unlearned."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product

import torch
from torch import Tensor

from grail.data.batches import Batch, collate, shuffled
from grail.data.encode import Encoded
from grail.data.substitutes import Substitute, truth
from grail.model.answers import Answers, answers_of, reference_logits, together
from grail.model.forward import Policy, device_of
from grail.model.weights import Weights
from grail.training.task import History, StepResult, merged
from grail.unlearning.guesses import after_examples, keep_beginnings
from grail.unlearning.losses import nll
from grail.unlearning.objectives import Objective
from grail.unlearning.rewrites import REWRITTEN


@dataclass(frozen=True)
class Schedule:
    """Which unlearn rows are trained, and when.

    Attributes:
        batch_size: Unlearn rows per step.
        epochs: Epochs of a phase.
        phases: Lists of domains that are unlearned one after another; None: all at once.
        row_accuracy: A row no longer contributes once its token accuracy (0-1) is at most this;
            None: it always does.
        domain_accuracy: The rows of a domain no longer contribute once their mean accuracy, as last
            seen, is at most this; None: they always do.
        retain_ratio: Retain rows of a step for each of its unlearn rows.
        goes_on: Whether steps go on once every unlearn row counts as unlearned: the others are
            still trained, and the unlearn rows looked after.
    """

    batch_size: int = 4
    epochs: int = 8
    phases: Sequence[Sequence[str]] | None = None
    row_accuracy: float | None = 0.1
    domain_accuracy: float | None = None
    retain_ratio: int = 1
    goes_on: bool = False


@dataclass(frozen=True)
class UnlearnTask:
    """What the loop trains in Stage 3.

    Attributes:
        model: The model being unlearned.
        rows: Train rows of all domains and sides, and general rows where the objective reads them.
        objective: The weighted terms.
        pad: Padding token id.
        schedule: Which rows are trained, and when.
        seed: Fixes the order of rows.
        split: Whether each side gets its own backward pass (for a mask or a rule by side).
        reference: The model before unlearning, where a term compares with it.
        substitute: What unlearn rows must say instead of the truth.
        history: Accuracies as last seen.
        teacher: What unlearn rows are compared with instead of the reference, if anything.
        examples: Key of an unlearn row -> ids that the teacher reads ahead of it.
        begins: Domain -> the tokens with which the teacher may begin an answer; others: any.
    """

    model: Policy
    rows: tuple[Encoded, ...]
    objective: Objective
    pad: int
    schedule: Schedule = Schedule()
    seed: int = 0
    split: bool = False
    reference: Weights | None = None
    substitute: Substitute = truth
    history: History = field(default_factory=History)
    teacher: Weights | None = None
    examples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    begins: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def plan(self, epoch: int) -> list[list[Encoded]]:
        """Return the steps of an epoch; none once all is unlearned, unless ``goes_on``.

        An epoch sees each unlearn row of the phase's domains once, and as many of their wordings if
        there are any, the domains interleaved. A step
        also holds ``retain_ratio`` retain rows of the same domain for each, and general rows, where
        the objective reads them. A row that was unlearned in the epoch before is skipped for one
        epoch, so that steps go to what is still remembered. The retain rows still cover all
        domains.
        """
        size, ratio, sides = (
            self.schedule.batch_size,
            self.schedule.retain_ratio,
            self.objective.sides,
        )
        seen = self.history.before(epoch)
        domains, first = self._phase(epoch)
        forgotten = self._forgotten_domains(seen)
        accuracies = {key: accuracy for key, (_, accuracy) in seen.items()}
        interleaved = self._interleaved(domains, epoch)
        unlearned = [
            row
            for row in interleaved
            if epoch != first and not self._contributes(row, accuracies, forgotten)
        ]
        if len(unlearned) == len(interleaved) and not self.schedule.goes_on:
            return []
        last = {key for key, (number, _) in seen.items() if number == epoch - 1}
        resting = {row.key for row in unlearned} & last
        remaining = [row for row in interleaved if row.key not in resting] or interleaved
        retain = {domain: self._cycle("retain", domain, epoch) for domain in domains}
        general = self._cycle("general", "general", epoch)
        steps = []
        for start in range(0, len(remaining), size):
            unlearn = remaining[start : start + size]
            beside = interleaved[start : start + len(unlearn)]
            pairs = product(beside, range(ratio if "retain" in sides else 0))
            partners = [next(retain[row.domain]) for row, _ in pairs]
            every = 2 if partners else 1  # beside retain rows, half as many general rows suffice
            others = [next(general) for _ in unlearn[::every] if "general" in sides]
            steps.append([*unlearn, *partners, *others])
        return steps

    def groups(self, rows: Sequence[Encoded]) -> list[tuple[str, list[Encoded]]]:
        """Split a step into unlearn rows and the others, where a mask or a rule asks for it."""
        if not self.split:
            return [("", list(rows))]
        unlearn = [row for row in rows if row.side == "unlearn"]
        return [("unlearn", unlearn), ("retain", [row for row in rows if row.side != "unlearn"])]

    def run(self, rows: Sequence[Encoded], step: Sequence[Encoded]) -> StepResult:
        """Return the share of ``rows`` in the loss of ``step``.

        The loss is the sum over terms of weight times the mean over the term's side of the step.
        Rows that are unlearned count in the mean, but with a loss of zero. The log's SIDE/nll is
        that of the true tokens, whatever the rows are trained to say.
        """
        forgotten = self._forgotten_domains(self.history.seen)
        results = []
        for side, members, answers in self._answers(rows):
            true = self._truth(members, answers)
            accuracy = dict(zip((row.key for row in members), true.accuracy.tolist(), strict=True))
            active = [self._contributes(row, accuracy, forgotten) for row in members]
            on = torch.tensor(active, device=answers.logits.device)
            share = 1 / sum(row.side == side for row in step)
            loss = answers.nll.new_zeros(())
            log: dict[str, Tensor] = {f"{side}/nll": share * nll(true).detach().sum()}
            for term in self.objective.of(side):
                value = term.loss(answers)
                loss = loss + term.weight * share * torch.where(on, value, 0.0).sum()
                log[term.name] = share * value.detach().sum()
            results.append(StepResult(loss, log, accuracy, sum(active) * (side == "unlearn")))
        return merged(results)

    def _answers(self, rows: Sequence[Encoded]) -> Iterator[tuple[str, list[Encoded], Answers]]:
        """Run the model over rows of all sides together; yield each side's rows and answers."""
        for group in together(self.model, [r for r in rows if r.side in self.objective.sides]):
            sides = {s: [r for r in group if r.side == s] for s in self.objective.sides}
            sides = {side: members for side, members in sides.items() if members}
            both = answers_of(self.model, self._batch([r for part in sides.values() for r in part]))
            parts = both.split([len(members) for members in sides.values()])
            for (side, members), answers in zip(sides.items(), parts, strict=True):
                taught = side == "unlearn" and self.teacher is not None
                reference = self.teacher if taught else self.reference
                if reference is not None and self.objective.compares(side):
                    examples = self.examples if taught else {}
                    read = [after_examples(row, examples) for row in members]
                    logits = reference_logits(self.model, self._batch(read), reference)
                    if taught:
                        keep_beginnings(logits, members, self.begins)
                    answers = replace(answers, reference=logits)
                yield side, members, answers

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        return collate([self._read(row) for row in rows], self.pad, device_of(self.model))

    def _read(self, row: Encoded) -> Encoded:
        """Return what the model reads for a row: unlearn rows may say something but the truth."""
        return self.substitute(row) if row.side == "unlearn" else row

    @torch.no_grad()
    def _truth(self, rows: Sequence[Encoded], answers: Answers) -> Answers:
        """Return the answers with the true tokens as targets."""
        said = [self._read(row) for row in rows]
        if all(new is row for new, row in zip(said, rows, strict=True)):
            return answers
        device = answers.logits.device
        if all(new.ids == row.ids for new, row in zip(said, rows, strict=True)):
            true = torch.tensor([token for row in rows for token in row.answer], device=device)
            return replace(answers, targets=true)
        # the model read something other than the truth: run it once more
        return answers_of(self.model, collate(rows, self.pad, device))

    # -- which rows, when ----------------------------------------------------------------------

    def _phase(self, epoch: int) -> tuple[list[str], int]:
        """Return the domains that an epoch unlearns, and the first epoch of its phase."""
        if self.schedule.phases is None:
            return self._domains(), 0
        number = epoch // self.schedule.epochs
        return list(self.schedule.phases[number]), number * self.schedule.epochs

    def _domains(self) -> list[str]:
        return list(dict.fromkeys(row.domain for row in self.rows if row.side == "unlearn"))

    def _of(self, side: str, domain: str) -> list[Encoded]:
        return [row for row in self.rows if (row.side, row.domain) == (side, domain)]

    def _given(self, domain: str) -> list[Encoded]:
        """Return the unlearn rows of a domain without their wordings."""
        return [row for row in self._of("unlearn", domain) if row.part != REWRITTEN]

    def _interleaved(self, domains: Sequence[str], epoch: int) -> list[Encoded]:
        """Return all unlearn rows once; domains of unequal size are spread evenly over the epoch.

        Where they have wordings, as many of those come with them.

        Repeating the rows of a small domain until the largest is through would unlearn them more
        often than the others, so a step holds the domains in the proportion of their rows.
        """
        ranked: list[tuple[float, Encoded]] = []
        for domain in domains:
            given = self._given(domain)
            size = len(given) * (2 if len(given) < len(self._of("unlearn", domain)) else 1)
            rows = zip(range(size), self._cycle("unlearn", domain, epoch), strict=False)
            ranked += [((i + 0.5) / size, row) for i, row in rows]
        return [row for _, row in sorted(ranked, key=lambda pair: pair[0])]

    def _cycle(self, side: str, domain: str, epoch: int) -> Iterator[Encoded]:
        """Yield rows of a side and domain without end, shuffled anew on every lap.

        Rows that a model has written alternate with those that were given.
        """
        rows, labels = self._of(side, domain), ("unlearn", side, domain, epoch)
        given = [row for row in rows if row.part != REWRITTEN]
        written = [row for row in rows if row.part == REWRITTEN]

        def laps(members: list[Encoded], *more: str) -> Iterator[Encoded]:
            for lap in count():
                yield from shuffled(members, self.seed, *labels, lap, *more)

        if written:
            pairs = zip(laps(given), laps(written, REWRITTEN), strict=True)
            yield from (row for pair in pairs for row in pair)
        yield from laps(given)

    def _forgotten_domains(self, seen: Mapping[str, tuple[int, float]]) -> set[str]:
        """Return the domains whose rows, as last seen, have a low enough mean accuracy.

        The rows of the current step do not count: which of them are known depends on the
        micro-batch and the process.
        """
        limit = self.schedule.domain_accuracy
        if limit is None:
            return set()
        means = {}
        for domain in self._domains():
            rows = self._given(domain)
            means[domain] = sum(seen.get(row.key, (0, math.inf))[1] for row in rows) / len(rows)
        return {domain for domain, mean in means.items() if mean <= limit}

    def _contributes(
        self, row: Encoded, accuracies: Mapping[str, float], forgotten: Collection[str]
    ) -> bool:
        """Tell whether a row's loss still counts: neither it nor its domain is unlearned."""
        if row.side != "unlearn":
            return True
        limit = self.schedule.row_accuracy
        low = limit is not None and accuracies.get(row.key, math.inf) <= limit
        return not low and row.domain not in forgotten
