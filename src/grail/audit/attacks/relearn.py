"""The relearning attack: descent on a few rows. How fast does the knowledge come back?

The attacker knows nothing of how the model was unlearned.
"""

import math
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from itertools import count
from typing import Any

import torch
from torch import nn

from grail.audit.attacks.attackers import Attacker, trained
from grail.audit.context import AuditContext
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.errors import DivergenceError
from grail.evaluation.values import SampleValue
from grail.model.forward import Policy, in_mode
from grail.progress import Tick
from grail.training.descent import DescentTask
from grail.training.optimizer import masters_of, take_gradients, write_back

Split = Callable[[AuditContext], tuple[list[Encoded], list[Encoded]]]
"""Returns the rows that the attacker trains on, and the rows that are measured afterwards."""

_MAX_GRAD_NORM = 1.0


def relearn(
    context: AuditContext, tick: Tick, split: Split, attacker: Attacker
) -> list[SampleValue]:
    """Train on some rows, and measure others after each number of ``audit.relearn.steps``."""
    settings, run = context.settings.relearn, context.run
    taught, asked = split(context)
    steps = batches(taught, settings.batch_size, settings.steps[-1], context.seed)
    pad = run.tokenizer.pad_token_id
    points = descend(run.model, steps, attacker, settings.steps, context.seed, pad)
    states = ((str(point), asked) for point in points)
    return context.measure_each(states, len(settings.steps), tick)


def batches(rows: Sequence[Encoded], size: int, steps: int, seed: int) -> list[list[Encoded]]:
    """Return exactly ``steps`` batches: pass after pass over all rows, each in another order."""
    plan: list[list[Encoded]] = []
    for number in count():
        order = shuffled(rows, seed, "relearn", 0, number)
        plan += [order[first : first + size] for first in range(0, len(order), size)]
        if len(plan) >= steps:
            break
    return plan[:steps]


def descend(
    model: Policy,
    steps: Iterable[Sequence[Encoded]],
    attacker: Attacker,
    points: Collection[int],
    seed: int,
    pad: int,
) -> Generator[int]:
    """Take one step a batch at a constant rate; yield the steps taken at each of ``points``.

    While it is suspended the model is as trained so far; once it is exhausted or closed, the
    model has its own weights again, to the bit.

    Raises:
        DivergenceError: if the gradient stops being finite.
    """
    with trained(model, attacker, seed) as free, in_mode(model, training=True):
        parameters = {str(number): parameter for number, parameter in enumerate(free)}
        masters = masters_of(parameters)
        step_of = _OPTIMIZERS[attacker.optimizer](list(masters.values()), attacker.learning_rate)
        for step, rows in enumerate(steps, 1):
            with torch.random.fork_rng():  # dropout depends on the seed and the step alone
                torch.manual_seed((seed * 1_000_003 + step) * 1009)
                DescentTask(model, tuple(rows), pad).run(rows, rows).loss.backward()
            for name, gradient in take_gradients(parameters, masters).items():
                masters[name].grad = gradient
            norm = float(nn.utils.clip_grad_norm_(masters.values(), _MAX_GRAD_NORM))
            if math.isfinite(norm):
                step_of(min(norm, _MAX_GRAD_NORM))
                write_back(masters, parameters)
            for master in masters.values():
                master.grad = None
            if not math.isfinite(norm):
                raise DivergenceError(f"the gradient norm is {norm} at step {step} of relearning")
            if step in points:
                yield step


def _adamw(parameters: list[nn.Parameter], rate: float) -> Callable[[float], Any]:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    return lambda _: optimizer.step()


def _sgd(parameters: list[nn.Parameter], rate: float) -> Callable[[float], Any]:
    """Step along the gradient, as far as AdamW moves at first: by ``rate`` in each entry."""
    length = rate * math.sqrt(sum(parameter.numel() for parameter in parameters))

    @torch.no_grad()
    def step(norm: float) -> None:
        for parameter in parameters:
            if parameter.grad is not None and norm > 0:
                parameter.add_(parameter.grad, alpha=-length / norm)

    return step


_OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd}
"""Name -> parameters and rate -> a function that takes a step, given the gradient's norm."""


def few(context: AuditContext) -> tuple[list[Encoded], list[Encoded]]:
    """Return a share of each domain's unlearn train rows, and the measured rows among the rest."""
    taught: list[Encoded] = []
    rows = context.all_rows("unlearn", "train")
    for domain in dict.fromkeys(row.domain for row in rows):
        order = shuffled([r for r in rows if r.domain == domain], context.seed, "few", domain)
        taught += order[: max(1, round(context.settings.relearn.share * len(order)))]
    keys = {row.key for row in taught}
    return taught, [row for row in context.targets() if row.key not in keys]


def other(context: AuditContext) -> tuple[list[Encoded], list[Encoded]]:
    """Return the unlearn val rows (the same facts asked otherwise), and the measured train rows."""
    return context.all_rows("unlearn", "val"), context.targets()


def unrelated(context: AuditContext) -> tuple[list[Encoded], list[Encoded]]:
    """Return general text (benign relearning, arXiv 2406.13356), and the measured train rows."""
    return context.all_rows("general", "train"), context.targets()
