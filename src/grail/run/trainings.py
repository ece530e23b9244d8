"""The scorer and the trainings of a run, made from its settings, its rows and its model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import zip_longest
from typing import Any

from grail.config.importance import Importance
from grail.config.run import Unlearning
from grail.config.teach import Teach
from grail.data import substitutes
from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.importance.score import Scorer
from grail.importance.self_check import Agreement, self_check
from grail.localization.describe import overlap_of_tops
from grail.model.forward import Policy, positions_of
from grail.model.weights import Weights, copy_weights
from grail.run.context import RunContext
from grail.training.descent import DescentTask
from grail.training.optimizer import LoopSettings
from grail.training.task import Task
from grail.unlearning.guesses import GUESS_RULES, Written, beginnings, examples_for
from grail.unlearning.objectives import EXACT, make_objective
from grail.unlearning.rewrites import REWRITTEN
from grail.unlearning.task import Schedule, UnlearnTask
from grail.unlearning.wordings import wordings

Training = tuple[Task, LoopSettings]
"""What the loop trains, and how it steps."""


def vanilla_training(context: RunContext) -> Training:
    """Return the training on both sides of all domains."""
    return _descent(context, ("unlearn", "retain"), context.config.vanilla_seed)


def _descent(context: RunContext, sides: tuple[str, ...], seed: int) -> Training:
    """Return the vanilla stage's training on some sides."""
    section, pad = context.config.teach or Teach(), context.tokenizer.pad_token_id
    rows = tuple(row for row in context.rows if row.part in section.parts and row.side in sides)
    task = DescentTask(context.model, rows, pad, seed, section.batch_size, section.until)
    return task, loop_settings(section, seed)


def unlearn_training(
    context: RunContext,
    by_side: bool,
    before: Weights | None = None,
    written: Written | None = None,
) -> Training:
    """Return Stage 3; the model holds the vanilla weights now, and they are the reference.

    ``exact`` starts over instead: the weights before the teaching, trained as that stage does but
    on the retain rows alone.

    With ``by_side`` the mask has entries of their own for each side. ``before`` are the weights
    from before the facts were learnt, the teacher of distill; ``written`` is what models have
    written ahead of it.
    """
    config = context.config
    if config.unlearning.objective == EXACT:
        context.start_over(config.seed)
        return _descent(context, ("retain",), config.seed)
    written, section = written or Written(), config.unlearning
    rows = [*context.rows, *context.general, *written.rows]
    if section.objective == "distill" and section.teacher == "auto":
        teacher = "suppressed" if before is None else "before"
        section = section.model_copy(update={"teacher": teacher})
    task, settings = unlearn_task(
        context.model, context.tokenizer, rows, section, config.seed, by_side
    )
    return taught(task, section, before, written.examples), settings


def unlearn_facts(context: RunContext) -> dict[str, Any]:
    """Return what Stage 3 depends on, besides settings and the files of earlier stages."""
    section = context.config.unlearning
    objective, facts = make_objective(section), dict[str, Any](rows=context.data("train"))
    if "general" in objective.sides:
        facts["general"] = context.data("general")
    if objective.source:
        facts["objective"] = objective.source
    if _follows_before(section) and section.examples:
        facts["guesses"] = GUESS_RULES
    if every := context.config.every:
        facts |= {"every": every, "read": context.data("train", HELD_OUT, "general")}
    return facts


def taught(
    task: UnlearnTask,
    section: Unlearning,
    before: Weights | None,
    examples: Mapping[str, tuple[int, ...]],
) -> UnlearnTask:
    """Give a task the model before the facts as a teacher, where its objective follows that.

    The teacher reads ``examples`` ahead of the rows that have some, and others ahead of the rest;
    it then begins as the domain's retain answers do.
    """
    if before is None or not _follows_before(section):
        return task
    room = positions_of(task.model.config)
    if not section.examples:
        return replace(task, teacher=before, examples=examples)
    shown = examples_for(task.rows, section.examples, task.seed, room) | dict(examples)
    return replace(task, teacher=before, examples=shown, begins=beginnings(task.rows))


def _follows_before(section: Unlearning) -> bool:
    return section.objective == "distill" and section.teacher in ("auto", "before")


def unlearn_task(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Encoded],
    section: Unlearning,
    seed: int,
    by_side: bool,
) -> tuple[UnlearnTask, LoopSettings]:
    """Return the training of an objective on the train rows that it reads.

    The model's weights of now are the reference, where a term compares with one. Rows are of any
    part; train rows are used, and what a model has rewritten. The seed fixes the order of rows and
    the random labels. With ``by_side`` the mask has entries of their own for each side.
    """
    section = section.model_copy(update={"epochs": epochs_of(section, rows)})
    objective = make_objective(section)
    parts, sides = ("train", REWRITTEN), objective.sides
    asked = wordings(rows, tokenizer, wordings_of(section), seed)
    read = tuple(row for row in (*rows, *asked) if row.part in parts and row.side in sides)
    compared = any(objective.compares(side) for side in objective.sides)
    task = UnlearnTask(
        model,
        read,
        objective,
        tokenizer.pad_token_id,
        schedule_of(section),
        seed,
        split=by_side or section.rectify,
        reference=copy_weights(model) if compared else None,
        substitute=_substitute(model, tokenizer, objective.labels, seed),
    )
    return task, loop_settings(section, seed)


def wordings_of(section: Unlearning) -> int:
    """Return the wordings per unlearn row; none where distill has no model from before the facts.

    What nobody ever asked such a model has no answer of its own that could be pushed down.
    """
    alone = section.objective == "distill" and section.teacher not in ("auto", "before")
    return 0 if alone else section.wordings


def epochs_of(section: Unlearning, rows: Sequence[Encoded]) -> int:
    """Return the passes over the unlearn rows: where they are few, more than the setting."""
    if section.stop is None:
        return section.epochs
    count = sum((row.side, row.part) == ("unlearn", "train") for row in rows)
    count *= 2 if wordings_of(section) else 1
    steps = max(1, math.ceil(count / section.batch_size))
    return max(section.epochs, math.ceil(section.stop.steps / steps))


def schedule_of(section: Unlearning) -> Schedule:
    """Return which rows Stage 3 trains, and when."""
    until = section.until
    limits = (until.row_accuracy, until.domain_accuracy)
    sizes = (section.batch_size, section.epochs, section.phases)
    return Schedule(*sizes, *limits, section.retain_ratio, section.stop is not None)


def loop_settings(section: Teach | Unlearning, seed: int) -> LoopSettings:
    """Return how the loop steps: the settings that it shares with a section, by name."""
    shared = {field.name for field in fields(LoopSettings)} & set(type(section).model_fields)
    values: dict[str, Any] = {name: getattr(section, name) for name in shared}
    cycles = len(getattr(section, "phases", None) or [()])
    values |= {"seed": seed, "epochs": section.epochs * cycles, "cycles": cycles}
    return LoopSettings(**values)


def run_scorer(context: RunContext) -> Scorer:
    """Return Stage 1 of a run's model, with whatever weights it holds then."""
    section, seed = context.config.importance, context.config.label_seed
    scorer = make_scorer(context.model, context.tokenizer, section, seed)
    return replace(scorer, process=context.process)


def make_scorer(model: Policy, tokenizer: Any, section: Importance, seed: int) -> Scorer:
    """Return Stage 1 of a model; ``seed`` is that of the random labels."""
    labels = RandomLabels(vocabulary(model, tokenizer), section.substitution, seed)
    values = section.model_dump(exclude={"substitution", "seed", "checkpoint_rows"})
    return Scorer(model, labels, tokenizer.pad_token_id, **values)


def vocabulary(model: Policy, tokenizer: Any) -> tuple[int, ...]:
    """Return the token ids that random labels are drawn from."""
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])  # type: ignore
    return ordinary_tokens(size, tokenizer.all_special_ids)


def _substitute(model: Policy, tokenizer: Any, labels: str, seed: int) -> substitutes.Substitute:
    if labels == "random":
        return substitutes.random_targets(vocabulary(model, tokenizer), seed)
    if labels == "refusal":
        refusal = tokenizer(substitutes.REFUSAL, add_special_tokens=False)["input_ids"]
        return substitutes.refusal(refusal)
    return substitutes.truth


def agreement_of_scores(context: RunContext, count: int) -> Agreement:
    """Compare batched and looped scores of the vanilla model, on ``count`` train rows.

    They are taken from all sides in turn.
    """
    in_turn = zip_longest(*context.sides().values())
    rows = [row for group in in_turn for row in group if row is not None][:count]
    context.take("vanilla")
    overlap = partial(overlap_of_tops, how=context.config.localization)
    with context.listener.stage("check") as tick:
        scorer = replace(run_scorer(context), process=(0, 1))  # the main process alone
        return self_check(scorer, rows, overlap, tick)
