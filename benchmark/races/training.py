"""Training steps: grail's loop against the Trainer; what a mask and a reference add."""

from __future__ import annotations

import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from grail.artifacts import Mask
from grail.config.run import Unlearning
from grail.model.forward import trainable
from grail.model.weights import copy_weights
from grail.run.trainings import loop_settings, schedule_of
from grail.training.accelerator import make_accelerator
from grail.training.loop import Loop, LoopFiles
from grail.unlearning.objectives import make_objective
from grail.unlearning.task import UnlearnTask
from races import trainer
from races.clock import now, ratio, timed
from races.outcome import Outcome
from races.plan import Plan
from races.subjects import Field, Subject, field_of
from races.trainer import Steps

AGREES = 1e-4
"""Difference of the NLL between the two ways that is let pass in float32: nats, or relative to an
NLL above 1."""

SHARES = (0.1, 0.2)
"""Frozen shares of the masks that are raced."""


def run(plan: Plan) -> Outcome:
    """Race grail and the Trainer in every precision, then masks and the reference in one."""
    outcome = Outcome("training")
    for dtype in plan.precisions:
        count = 2 * plan.batch * plan.steps
        field = field_of(Subject(plan.model, dtype, plan.device), plan.data, count)
        _against_trainer(plan, field, outcome)
        if dtype == plan.precision:
            _additions(plan, field, outcome)
    return outcome


def settings_of(batch: int, **more: Any) -> Unlearning:
    """Return the paper's objective: nothing bounded, no row at rest, a constant rate."""
    plain = {"max_token_nll": None, "until": None, "schedule": "constant", "epochs": 1}
    given = plain | {"batch_size": batch, "learning_rate": 1e-3} | more
    return Unlearning.model_validate(given)


def task_of(field: Field, settings: Unlearning) -> UnlearnTask:
    """Return Stage 3's task over the field's rows; the weights are now the reference's."""
    objective = make_objective(settings)
    compared = any(objective.compares(side) for side in objective.sides)
    reference = copy_weights(field.model) if compared else None
    rows = tuple(field.rows)
    schedule = schedule_of(settings)
    return UnlearnTask(field.model, rows, objective, field.pad, schedule, reference=reference)


def by_loop(field: Field, settings: Unlearning, mask: Mask | None = None) -> Steps:
    """Train one epoch with grail's loop."""
    loop = _loop(field, settings, mask)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        log = folder / "train.jsonl"
        loop.run(
            LoopFiles(log, folder / "checkpoint", "speed"),
            lambda *_: ends.append(now()),
        )
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = [later - sooner for sooner, later in pairwise(ends)]
    sides = ("unlearn", "retain")
    return Steps(
        seconds, {side: [line["terms"][f"{side}/nll"] for line in lines] for side in sides}
    )


def by_trainer(field: Field, settings: Unlearning) -> Steps:
    """Train on the same batches in the same order with the Trainer."""
    plan = task_of(field, settings).plan(0)
    with tempfile.TemporaryDirectory() as place:
        return trainer.train(field.model, plan, settings, field.pad, Path(place))


def random_mask(field: Field, share: float) -> Mask:
    """Freeze a share of all trainable entries, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    return Mask(
        {
            name: torch.rand(parameter.shape, generator=generator) < share
            for name, parameter in trainable(field.model).items()
        }
    )


def furthest(ours: Steps, theirs: Steps) -> float:
    """Return the largest difference of the sides' NLL over all steps, relative above 1 nat."""
    return max(
        abs(a - b) / max(1.0, abs(b))
        for side in ours.nll
        for a, b in zip(ours.nll[side], theirs.nll[side], strict=True)
    )


def _loop(field: Field, settings: Unlearning, mask: Mask | None) -> Loop:
    task, how = task_of(field, settings), loop_settings(settings, 0)
    return Loop(trainable(field.model), task, mask, how, make_accelerator())


def _against_trainer(plan: Plan, field: Field, outcome: Outcome) -> None:
    settings, dtype = settings_of(plan.batch), field.subject.dtype
    ways = {
        "grail": lambda: by_loop(field, settings),
        "Trainer": lambda: by_trainer(field, settings),
    }
    blocks = _blocks(field, ways, plan.repeats)
    far = max(map(furthest, blocks["grail"], blocks["Trainer"]))
    if dtype == "float32" and far > AGREES:
        raise RuntimeError(f"grail and the Trainer do not see the same losses: {far} apart")
    seconds = _seconds(blocks)
    outcome.add(
        "steps",
        precision=dtype,
        rows_per_step=2 * plan.batch,
        seconds_per_step=seconds,
        steps_per_second={name: 1 / statistics.median(own) for name, own in seconds.items()},
        nll={name: own[0].nll for name, own in blocks.items()},
        largest_difference=far,
    )
    outcome.rate(f"Trainer / grail, {dtype}", ratio(seconds, "Trainer", "grail"))


def _additions(plan: Plan, field: Field, outcome: Outcome) -> None:
    """Race steps without a mask, with masks, and with a KL term whose reference runs too."""
    settings = settings_of(plan.batch)
    kl = settings_of(plan.batch, objective="ascent_kl")
    ways: dict[str, Any] = {"no mask": lambda: by_loop(field, settings)}
    for share in SHARES:
        mask = random_mask(field, share)
        ways[f"{share:.0%} frozen"] = lambda mask=mask: by_loop(field, settings, mask)
    ways["KL on retain rows"] = lambda: by_loop(field, kl)
    blocks = _blocks(field, ways, plan.mask_rounds)
    seconds = _seconds(blocks)
    alone = {f"{share:.0%} frozen": _masking(field, share) for share in SHARES}
    outcome.add(
        "mask and reference",
        precision=field.subject.dtype,
        seconds_per_step=seconds,
        seconds_of_masking_alone=alone,
    )
    step = statistics.median(seconds["no mask"])
    for name, own in alone.items():
        outcome.rate(f"what a mask adds to a step, {name}", own / step)
        outcome.rate(f"steps with a mask / without, {name}", ratio(seconds, name, "no mask"))
    outcome.rate("steps with KL / without", ratio(seconds, "KL on retain rows", "no mask"))


def _masking(field: Field, share: float, times: int = 20) -> float:
    """Return the seconds of masking alone, which whole steps on a busy machine would drown.

    What the loop does to every step's gradients, on gradients of the same shapes.
    """
    loop = _loop(field, settings_of(1), random_mask(field, share))
    gradients = {n: torch.ones_like(p) for n, p in trainable(field.model).items()}
    return statistics.median(
        timed(lambda: loop.freezing.masked(gradients, "")) for _ in range(times)
    )


def _blocks(field: Field, ways: dict[str, Any], repeats: int) -> dict[str, list[Steps]]:
    """Run blocks of steps in turn, each from the same weights; a first round only warms up."""
    start = field.start()
    blocks: dict[str, list[Steps]] = {name: [] for name in ways}
    field.model.train()
    for counted in range(-1, repeats):
        for name, way in ways.items():
            field.put(start)
            block = way()
            if counted >= 0:
                blocks[name].append(block)
    field.put(start)
    field.model.eval()
    return blocks


def _seconds(blocks: dict[str, list[Steps]]) -> dict[str, list[float]]:
    """Return the median step of every block."""
    return {
        name: [statistics.median(block.seconds) for block in own] for name, own in blocks.items()
    }
