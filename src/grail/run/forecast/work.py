"""What each stage puts through the model, counted from rows and settings.

Tokens are those of the rows: padding is not counted, and a prompt that trials share is counted once
for each. Counts are at most: no row rests and no stage ends early.
"""

import math
from collections.abc import Collection, Iterable, Sequence

from grail.config.run import Config
from grail.config.teach import Teach
from grail.config.unlearning import Unlearning
from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.evaluation.equal_retention import MOST
from grail.evaluation.evaluate import rows_to_continue
from grail.model.generate import groups_of, most_new
from grail.run.inputs import knows_before
from grail.run.looks import looked_at
from grail.run.neighbours import ANSWER, QUESTION
from grail.run.trainings import epochs_of, wordings_of
from grail.unlearning.guesses import GUESS_TOKENS, attempts, examples_for
from grail.unlearning.objectives import EXACT, make_objective
from grail.unlearning.rewrites import BATCH, LIMIT

Rows = Sequence[Encoded]

Work = dict[str, int]
"""Kind -> tokens. "read" is a pass without gradients, "train" forward and backward, "score" a
gradient per row; "write" continues prompts: each step computes a token for every row of a batch."""

READ_AGAIN = 1 / 3
"""What reading a row without gradients takes, in parts of what training it takes."""


def tokens_of(rows: Iterable[Encoded]) -> int:
    """Return the tokens of some rows."""
    return sum(len(row.ids) for row in rows)


def models_of(config: Config) -> int:
    """Return how many models a run evaluates: vanilla, unlearned, and one at equal retention."""
    return 2 if config.evaluation.retain_target is None else 3


def workload(config: Config, rows: Rows, general: Rows, score_passes: int = 1) -> dict[str, Work]:
    """Return the work of each stage, in order; scoring takes ``score_passes`` over its rows."""
    how, scoring, settings = config.teach or Teach(), config.importance, config.unlearning
    taught = [r for r in rows if r.part in how.parts and r.side in ("unlearn", "retain")]
    kept = [row for row in taught if row.side == "retain"]
    train = [row for row in taught if row.part == "train"]
    trials = scoring.trials if scoring.labels == "random" else 1
    work: dict[str, Work] = {
        "vanilla": {"train": tokens_of(taught) * how.epochs} if config.teaches else {},
        "score": {"score": tokens_of(train) * trials * score_passes},
        "localize": {},
        "reset": _rewriting(config, train),
        "unlearn": _unlearning(config, rows, general),
        "evaluate": _evaluation(config, rows, general),
    }
    if settings.objective == EXACT:
        work["unlearn"] = {"train": tokens_of(kept) * how.epochs}
    if not work["reset"] and settings.reset is None:
        del work["reset"]
    return work


def step_costs(settings: Unlearning) -> dict[str, float]:
    """Return side -> what a step of Stage 3 does with a token of it, in tokens trained.

    A side that is compared with the reference is read again, and so are unlearn rows that a refusal
    stands in for.
    """
    objective = make_objective(settings)
    refused = {"unlearn"} if objective.labels == "refusal" else set()
    again = refused | {side for side in objective.sides if objective.compares(side)}
    return {side: 1 + READ_AGAIN * (side in again) for side in objective.sides}


def step_rows(settings: Unlearning) -> dict[str, int]:
    """Return side -> its rows in a full step of Stage 3."""
    sides, size = make_objective(settings).sides, settings.batch_size
    general = math.ceil(size / (2 if "retain" in sides else 1))
    rows = {"unlearn": size, "retain": size * settings.retain_ratio, "general": general}
    return {side: rows[side] for side in sides}


def optimizer_steps(config: Config, rows: Rows) -> dict[str, int]:
    """Return the optimiser's steps of both trainings."""
    how, settings = config.teach or Teach(), config.unlearning
    sides = {"vanilla": ("unlearn", "retain"), "unlearn": ("retain",)}
    steps = {
        name: how.epochs
        * math.ceil(sum(r.part in how.parts and r.side in of for r in rows) / how.batch_size)
        for name, of in sides.items()
    }
    if not config.teaches:
        steps["vanilla"] = 0
    if settings.objective != EXACT:
        phases = settings.phases or [list(config.domains)]
        batches = sum(_batches(settings, rows, domains) for domains in phases)
        steps["unlearn"] = epochs_of(settings, rows) * batches
    return steps


def _batches(settings: Unlearning, rows: Rows, domains: Collection[str]) -> int:
    """Return the steps of an epoch of Stage 3."""
    count = len(_train(rows, "unlearn", domains)) * (2 if wordings_of(settings) else 1)
    return math.ceil(count / settings.batch_size)


def prompt_batches(config: Config, rows: Rows) -> list[Rows]:
    """Return the batches in which the evaluation continues prompts, short answers first."""
    asked = rows_to_continue(rows)
    groups = groups_of(asked, config.evaluation.batch_size)
    return [[asked[i] for i in group] for group in groups]


def _unlearning(config: Config, rows: Rows, general: Rows) -> Work:
    """Return Stage 3: each epoch has every unlearn row of its phase, retain and general rows.

    ``retain_ratio`` retain rows come with each unlearn row; a general row with each, or with every
    second one of a step where there are retain rows. Then come looks, and guesses of who never
    knew.
    """
    settings, train, steps = config.unlearning, 0.0, 0
    if settings.objective == "distill" and settings.teacher == "auto":
        teacher = "before" if knows_before(config) else "suppressed"
        settings = settings.model_copy(update={"teacher": teacher})
    costs, epochs, everything = step_costs(settings), epochs_of(settings, rows), [*rows, *general]
    for domains in settings.phases or [list(config.domains)]:
        count = len(_train(rows, "unlearn", domains)) * (2 if wordings_of(settings) else 1)
        batches = _batches(settings, rows, domains)
        general_rows = batches * step_rows(settings).get("general", 0)
        retain_rows = count * settings.retain_ratio
        wanted = {"unlearn": count, "retain": retain_rows, "general": general_rows}
        for side, cost in costs.items():
            members = _train(everything, side, [*domains, "general"])
            train += cost * epochs * wanted[side] * tokens_of(members) / len(members)
        steps += epochs * batches
    seen, read = looked_at(everything), 0
    if config.every is not None:  # before, between and after
        read = tokens_of(seen) * (2 + steps // config.every)
    if settings.stop or settings.objective == "distill":  # by two models
        read += 2 * tokens_of(r for r in seen if r.side == "unlearn")
        read += tokens_of(r for r in rows if r.part == HELD_OUT)
    if settings.objective == "distill" and settings.examples and knows_before(config):
        shown = examples_for(_asked(rows), settings.examples, config.seed)
        read += epochs * (2 if settings.wordings else 1) * sum(map(len, shown.values()))
    return {"train": math.ceil(train), "read": read}


def _evaluation(config: Config, rows: Rows, general: Rows) -> Work:
    models, settings = models_of(config), config.evaluation
    own = settings.neighbours * (QUESTION + ANSWER)
    work = {"read": tokens_of([*rows, *general]) * models + own * models}
    if models == 3:  # the search for the third measures the retain rows again and again
        work["read"] += tokens_of(_train(rows, "retain", config.domains)) * MOST
    if settings.generate:
        batches = prompt_batches(config, rows)
        work["write"] = models * _written(batches, settings.max_new_tokens)
    if own:
        work["write"] = work.get("write", 0) + own * models
    return work


def _rewriting(config: Config, rows: Rows) -> Work:
    """Return what is written ahead of Stage 3: other answers to retain rows, and guesses."""
    settings, retain = config.unlearning, [row for row in rows if row.side == "retain"]
    read, write = 0, 0
    if settings.rewrites:  # after a search for first tokens, which are then forced
        begun = [row for row in retain for _ in range(settings.rewrites)]
        batches = [begun[i : i + BATCH] for i in range(0, len(begun), BATCH)]
        read, write = tokens_of(retain), _written(batches, LIMIT) + len(begun)
    most = attempts(settings.guesses, settings.examples)
    for draw in range(most * knows_before(config)):
        shown = examples_for(_asked(rows), settings.examples, f"{config.seed}/{draw}")
        prompts = [row.start for row in rows if row.side == "unlearn"]
        write += sum(map(len, shown.values())) + sum(prompts) + len(prompts) * (GUESS_TOKENS - 1)
    return {"read": read, "write": write} if write else {}


def _written(batches: Iterable[Rows], limit: int) -> int:
    """Return the tokens of the prompts, and those decoded after their first new token."""
    tokens = 0
    for batch in batches:
        steps = max(most_new(row, limit) for row in batch) - 1
        tokens += sum(row.start + steps for row in batch)
    return tokens


def _asked(rows: Rows) -> list[Encoded]:
    return [row for row in rows if row.part == "train"]


def _train(rows: Rows, side: str, domains: Collection[str]) -> list[Encoded]:
    return [r for r in rows if r.part == "train" and r.side == side and r.domain in domains]
