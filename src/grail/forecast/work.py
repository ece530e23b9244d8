"""What each stage has to compute: tokens through the model and how often, from rows and settings.

Knows rows in ids and the configuration; knows no model, no machine and no seconds. The orders and
batches are those of the stages themselves, at their longest: no row rests, no stage ends early.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from torch import nn

from grail.config.run import Config
from grail.data.batches import by_length, by_tokens
from grail.data.encode import Encoded
from grail.evaluation.equal_retention import MOST
from grail.evaluation.evaluate import BATCH_TOKENS, rows_to_continue
from grail.model.generate import groups_of, most_new
from grail.run.trainings import loop_settings, schedule_of
from grail.training.descent import DescentTask
from grail.unlearning.objectives import EXACT, make_objective
from grail.unlearning.task import UnlearnTask

Rows = Sequence[Encoded]


@dataclass(frozen=True)
class Passes:
    """Passes of one kind through the model.

    Attributes:
        batches: Forward passes.
        tokens: Positions in all batches, padding included.
        answers: Positions whose logits are computed.
        largest: The most positions held at once: of one batch, or of the batches of a step whose
            losses are added up before they are differentiated.
        most_answers: The same for answer positions.
    """

    batches: int = 0
    tokens: int = 0
    answers: int = 0
    largest: int = 0
    most_answers: int = 0

    def __add__(self, other: Passes) -> Passes:
        """Do both, one after the other."""
        return Passes(
            self.batches + other.batches,
            self.tokens + other.tokens,
            self.answers + other.answers,
            max(self.largest, other.largest),
            max(self.most_answers, other.most_answers),
        )

    def __mul__(self, times: int) -> Passes:
        """Do the same several times."""
        if not times:
            return Passes()
        sums = (self.batches * times, self.tokens * times, self.answers * times)
        return Passes(*sums, self.largest, self.most_answers)

    def at_once(self) -> Passes:
        """Hold all of them until a common backward pass."""
        return Passes(self.batches, self.tokens, self.answers, self.tokens, self.answers)


NOTHING = Passes()


@dataclass(frozen=True)
class Reading:
    """How rows stand in a batch: behind each other (``packed``), or padded to the longest."""

    packed: bool

    def groups(self, rows: Rows) -> list[Rows]:
        """Return what one forward pass of a step reads, as training groups it."""
        return ([rows] if rows else []) if self.packed else [*by_length(rows)]

    def passes(self, groups: Iterable[Rows], copies: int = 1) -> Passes:
        """Return the passes over batches of rows, each row standing ``copies`` times in its batch.

        Packed, its prompt stands there once, and nobody reads the end token.
        """
        found = NOTHING
        for group in groups:
            if self.packed:
                once = [len(row.ids) - 1 if copies == 1 else row.start for row in group]
                more = [len(row.answer) - 1 if copies > 1 else 0 for row in group]
                tokens = sum(once) + copies * sum(more)
            else:
                tokens = copies * len(group) * max(len(row.ids) for row in group)
            answers = copies * sum(len(row.answer) for row in group)
            found += Passes(1, tokens, answers, tokens, answers)
        return found


@dataclass(frozen=True)
class Work:
    """What one stage computes.

    Attributes:
        forward: Passes without gradients.
        backward: Passes forward and backward.
        steps: Optimiser steps.
        generated: Decoding: each pass computes one new token for every row of a batch.
        at_most: Whether the stage may end earlier than this.
    """

    forward: Passes = NOTHING
    backward: Passes = NOTHING
    steps: int = 0
    generated: Passes = NOTHING
    at_most: bool = False


@dataclass(frozen=True)
class Workload:
    """All of a run: stage -> work, in order; rows and tokens of each side and part.

    ``counts``: "domain.side.part" -> (rows, tokens, answer tokens), without padding.
    """

    counts: dict[str, tuple[int, int, int]]
    stages: dict[str, Work] = field(default_factory=dict)


def workload(
    config: Config, rows: Rows, general: Rows, how: Reading, score_passes: int = 1
) -> Workload:
    """Return what a run on these rows computes, at most; scores take ``score_passes`` over them."""
    models = 2 if config.evaluation.retain_target is None else 3
    read = how.passes(by_tokens([*rows, *general], BATCH_TOKENS))
    stages = {
        "vanilla": vanilla_work(config, rows, how),
        "score": Work(backward=score_work(config, rows, how) * score_passes),
        "localize": Work(),
        "unlearn": unlearn_work(config, rows, general, how),
        "evaluate": Work(forward=read * models + _search(config, rows, how)),
    }
    if config.evaluation.generate:
        prompts, made = generation_work(config, rows)
        generated = Work(forward=prompts * models, generated=made * models, at_most=True)
        stages["generate"] = generated
    return Workload(_counts([*rows, *general]), stages)


def vanilla_work(config: Config, rows: Rows, how: Reading) -> Work:
    """Return the longest vanilla training: every row in every epoch; none if a model is given."""
    given = config.vanilla
    if given.skip or given.adapter is not None:
        return Work()
    parts = ("train", "val") if given.include_val else ("train",)
    own = tuple(row for row in rows if row.part in parts)
    return _descent(config, own, config.vanilla_seed, how)


def _descent(config: Config, rows: tuple[Encoded, ...], seed: int, how: Reading) -> Work:
    section = config.vanilla
    task = DescentTask(nn.Identity(), rows, 0, seed, section.batch_size, section.until)
    found, steps = NOTHING, 0
    for epoch in range(config.vanilla.epochs):
        for step in task.plan(epoch):
            found, steps = found + how.passes(how.groups(step)).at_once(), steps + 1
    return Work(backward=found, steps=steps, at_most=True)


def score_work(config: Config, rows: Rows, how: Reading) -> Passes:
    """Return Stage 1: each train row once, all its trials in one batch (or one after another)."""
    given = config.importance
    trials = given.trials if given.labels == "random" else 1
    found = NOTHING
    for own in _sides(rows):
        if given.gradients == "loop":
            found += Reading(packed=False).passes([row] for row in own) * trials
        else:
            found += how.passes(by_tokens(own, given.batch_tokens, copies=trials), copies=trials)
    return found


def unlearn_work(config: Config, rows: Rows, general: Rows, how: Reading) -> Work:
    """Return the longest Stage 3: every unlearn row in every epoch."""
    settings, objective = config.unlearning, make_objective(config.unlearning)
    known = [row for row in (*rows, *general) if row.part == "train"]
    if settings.objective == EXACT:
        parts = ("train", "val") if config.vanilla.include_val else ("train",)
        kept = tuple(row for row in rows if row.part in parts and row.side == "retain")
        return _descent(config, kept, config.seed, how)
    own = tuple(row for row in known if row.side in objective.sides)
    split = settings.rectify or config.localization.freeze == "by_side"
    schedule = schedule_of(settings)
    task = UnlearnTask(nn.Identity(), own, objective, 0, schedule, config.seed, split)
    backward = forward = NOTHING
    steps = 0
    for epoch in range(loop_settings(settings, config.seed).epochs):
        for step in task.plan(epoch):
            trained, read = _step(task, settings.accumulation, step, how)
            backward, forward, steps = backward + trained, forward + read, steps + 1
    rests = settings.until.row_accuracy is not None or settings.until.domain_accuracy is not None
    return Work(forward, backward, steps, at_most=rests)


def _step(task: UnlearnTask, accumulation: int, step: Rows, how: Reading) -> tuple[Passes, Passes]:
    """Return the passes of one step with gradients and those without."""
    objective, trained, read = task.objective, NOTHING, NOTHING
    for _, members in task.groups(step):
        pieces = [members[i::accumulation] for i in range(len(members))]
        for micro in pieces[:accumulation]:
            groups = how.groups([row for row in micro if row.side in objective.sides])
            trained += how.passes(groups).at_once()
            for group, side in product(groups, objective.sides):
                own = [row for row in group if row.side == side]
                asked_again = side == "unlearn" and objective.labels == "refusal"
                again = int(objective.compares(side)) + int(asked_again)
                read += how.passes([own] if own else []) * again
    return trained, read


def _search(config: Config, rows: Rows, how: Reading) -> Passes:
    """Return the most passes that the way back to ``evaluation.retain_target`` can take."""
    if config.evaluation.retain_target is None:
        return NOTHING
    kept = [row for row in rows if (row.side, row.part) == ("retain", "train")]
    return how.passes(by_tokens(kept, BATCH_TOKENS)) * MOST


def generation_work(config: Config, rows: Rows) -> tuple[Passes, Passes]:
    """Return the passes over the prompts of one model's generations, and those of decoding.

    The pass over the prompts gives the first new token already.
    """
    how = config.evaluation
    prompts = made = NOTHING
    asked = rows_to_continue(rows)
    for places in groups_of(asked, how.batch_size):
        group = [asked[i] for i in places]
        size = len(group)
        tokens = size * max(row.start for row in group)
        prompts += Passes(1, tokens, size, tokens, size)
        steps = max(most_new(row, how.max_new_tokens) for row in group) - 1
        made += Passes(1, size, size, size, size) * steps
    return prompts, made


def _sides(rows: Rows) -> list[list[Encoded]]:
    """Return the train rows of every side of every domain."""
    sides: dict[tuple[str, str], list[Encoded]] = {}
    for row in rows:
        if row.part == "train":
            sides.setdefault((row.domain, row.side), []).append(row)
    return list(sides.values())


def _counts(rows: Rows) -> dict[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        name = f"{row.domain}.{row.side}.{row.part}"
        count, tokens, answers = found.get(name, (0, 0, 0))
        found[name] = (count + 1, tokens + len(row.ids), answers + len(row.answer))
    return found
