"""What each stage puts through the model, counted from rows and settings by closed formulas.

Tokens are those of the rows: padding is not counted, and a prompt that trials share is counted once
for each. Counts are at most: no row rests and no stage ends early.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from grail.config.run import Config
from grail.config.teach import Teach
from grail.data.batches import by_tokens
from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.evaluation.equal_retention import MOST
from grail.evaluation.evaluate import BATCH_TOKENS
from grail.model.generate import most_new
from grail.run.looks import looked_at
from grail.run.trainings import epochs_of
from grail.unlearning.objectives import EXACT, make_objective

Rows = Sequence[Encoded]


@dataclass(frozen=True)
class Passes:
    """Passes through the model: batches, tokens in them, and answer tokens, which need logits."""

    batches: int = 0
    tokens: int = 0
    answers: int = 0

    def __add__(self, other: Passes) -> Passes:
        """Do both."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Passes(*map(sum, pairs))

    def __mul__(self, times: int | float) -> Passes:
        """Do the same several times, rounded up."""
        return Passes(*(math.ceil(number * times) for number in vars(self).values()))


NO_PASSES = Passes()


@dataclass(frozen=True)
class Work:
    """What one stage computes.

    Attributes:
        forward: Passes without gradients.
        backward: Passes forward and backward.
        generated: Decoding steps: each computes one new token for every row of a batch.
        at_most: Whether the stage may end earlier.
    """

    forward: Passes = NO_PASSES
    backward: Passes = NO_PASSES
    generated: Passes = NO_PASSES
    at_most: bool = False


def passes_of(rows: Rows, batches: int = 1) -> Passes:
    """Return the passes that process each of the rows once, in ``batches`` batches."""
    return Passes(batches, sum(len(r.ids) for r in rows), sum(len(r.answer) for r in rows))


def models_of(config: Config) -> int:
    """Return how many models a run evaluates: vanilla, unlearned, and one at equal retention."""
    return 2 if config.evaluation.retain_target is None else 3


def workload(config: Config, rows: Rows, general: Rows, score_passes: int = 1) -> dict[str, Work]:
    """Return the work of each stage, in order; scoring takes ``score_passes`` over its rows."""
    teach, models = config.teach, models_of(config)
    parts = ("train", "val") if teach and teach.include_val else ("train",)
    learned = [row for row in rows if row.part in parts]
    retain = [row for row in learned if row.side == "retain"]
    exact = config.unlearning.objective == EXACT
    work = {
        "vanilla": _descent(config, learned) if config.teaches else Work(),
        "score": Work(backward=_scoring(config, rows) * score_passes),
        "localize": Work(),
        "unlearn": _descent(config, retain) if exact else _unlearning(config, rows, general),
        "evaluate": Work(forward=_measured([*rows, *general]) * models),
    }
    if models == 3:  # the search for the third measures the retain rows again and again
        search = _measured([row for row in retain if row.part == "train"]) * MOST
        work["evaluate"] = Work(forward=work["evaluate"].forward + search, at_most=True)
    if config.evaluation.generate:
        work["generate"] = _generation(config, rows, models)
    return work


def _descent(config: Config, rows: Rows) -> Work:
    how = config.teach or Teach()
    passes = passes_of(rows, math.ceil(len(rows) / how.batch_size))
    return Work(backward=passes * how.epochs, at_most=True)


def _measured(rows: Rows) -> Passes:
    return passes_of(rows, len(by_tokens(rows, BATCH_TOKENS)))


def _scoring(config: Config, rows: Rows) -> Passes:
    """Return one pass of Stage 1: every trial of each train row, in batches of one side each."""
    settings, total = config.importance, NO_PASSES
    trials = settings.trials if settings.labels == "random" else 1
    for domain, side in product(config.domains, ("unlearn", "retain")):
        members = _train(rows, side, [domain])
        batches = len(by_tokens(members, settings.batch_tokens, copies=trials))
        batches = len(members) * trials if settings.gradients == "loop" else batches
        total += passes_of(members * trials, batches)
    return total


def _unlearning(config: Config, rows: Rows, general: Rows) -> Work:
    """Return Stage 3: each epoch has every unlearn row of its phase, retain and general rows.

    ``retain_ratio`` retain rows come with each unlearn row; a general row with each, or with every
    second one of a step where there are retain rows.
    """
    settings, batches = config.unlearning, 0
    sides = dict.fromkeys(make_objective(settings).sides, NO_PASSES)
    epochs = epochs_of(settings, rows)
    for domains in settings.phases or [list(config.domains)]:
        count = len(_train(rows, "unlearn", domains))
        steps = math.ceil(count / settings.batch_size)
        general_rows = steps * math.ceil(settings.batch_size / (2 if "retain" in sides else 1))
        retain_rows = count * settings.retain_ratio
        wanted = {"unlearn": count, "retain": retain_rows, "general": general_rows}
        for side in sides:
            members = _train([*rows, *general], side, [*domains, "general"])
            sides[side] += passes_of(members, 0) * (epochs * wanted[side] / len(members))
        batches += epochs * steps * settings.accumulation
    split = settings.rectify or config.localization.freeze == "by_side"
    work = unlearning_work(config, sides, batches * (1 + split))
    if config.every is None:
        return work
    looks = 2 + batches // (settings.accumulation * config.every)  # before, between and after
    return replace(work, forward=work.forward + _measured(looked_at([*rows, *general])) * looks)


def unlearning_work(config: Config, sides: Mapping[str, Passes], batches: int = 1) -> Work:
    """Return the work of Stage 3 that trains with the passes of each side, in ``batches`` batches.

    A side that is compared with the reference is read again without gradients, and so are unlearn
    rows that a refusal stands in for.
    """
    objective, until = make_objective(config.unlearning), config.unlearning.until
    forward, backward = NO_PASSES, Passes(batches)
    for side, passes in sides.items():
        refused = side == "unlearn" and objective.labels == "refusal"
        forward += (passes + Passes(batches)) * (objective.compares(side) + refused)
        backward += passes
    ends = (until.row_accuracy, until.domain_accuracy, config.unlearning.stop)
    early = any(end is not None for end in ends)
    return Work(forward, backward, at_most=early)


def _generation(config: Config, rows: Rows, models: int) -> Work:
    """Return the passes over the prompts, and decoding after their first new token."""
    prompts = decoded = NO_PASSES
    for batch in prompt_batches(config, rows):
        steps = most_new(batch[-1], config.evaluation.max_new_tokens) - 1
        prompts += Passes(1, sum(row.start for row in batch), len(batch))
        decoded += Passes(1, len(batch), len(batch)) * steps
    return Work(forward=prompts * models, generated=decoded * models, at_most=True)


def prompt_batches(config: Config, rows: Rows) -> list[Rows]:
    """Return the batches in which prompts are continued, those with short answers first."""
    size = config.evaluation.batch_size
    asked = sorted((r for r in rows if r.part != HELD_OUT), key=lambda row: len(row.answer))
    return [asked[first : first + size] for first in range(0, len(asked), size)]


def _train(rows: Rows, side: str, domains: Collection[str]) -> list[Encoded]:
    return [r for r in rows if r.part == "train" and r.side == side and r.domain in domains]
