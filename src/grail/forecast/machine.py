"""Time a few real batches of each stage, and read off the process's memory; writes nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from grail.data.batches import by_tokens
from grail.data.encode import Encoded
from grail.evaluation.evaluate import BATCH_TOKENS
from grail.forecast.cost import Range, Shape, operations
from grail.forecast.work import Passes, Work, passes_of, prompt_batches, unlearning_work
from grail.importance import sums
from grail.model.forward import in_mode, trainable
from grail.model.generate import generate
from grail.run.context import RunContext
from grail.run.trainings import Training, run_scorer, unlearn_training, vanilla_training

SIDE = 1024
"""Rows and columns of the matrices whose product is timed."""
PRODUCTS = 10
"""How often it is computed."""
BATCHES, ENOUGH = 3, 10.0
"""Batches of each stage that are timed; none is begun after this many seconds."""
DECODED = 16
"""Decoding steps that are timed of a batch."""

Step = tuple[Work, float]
"""What a timed batch computes, and the seconds it took."""


@dataclass(frozen=True)
class Speed:
    """What a machine does with a model.

    Attributes:
        rate: Floating-point operations a second in plain matrix products.
        seconds: Stage -> seconds per operation: of the fastest timed batch, and of the slowest.
        peaks: Stage -> the most memory in bytes that the process had until it was timed.
        share: CPU seconds per second of timing, at most 1; below 1 on a machine that was busy with
            other processes, without which it would be as much faster.
    """

    rate: float
    seconds: dict[str, Range]
    peaks: dict[str, int]
    share: float = 1.0


def rate_of(device: torch.device, dtype: torch.dtype) -> float:
    """Return operations a second in products of two square matrices."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    _timed(torch.matmul, a, a)  # the first product also sets the libraries up
    spent, _ = _timed(lambda: [a @ a for _ in range(PRODUCTS)])
    return PRODUCTS * 2.0 * SIDE**3 / spent


def speed_of(context: RunContext, shape: Shape, rate: float) -> Speed:
    """Time some batches of every stage; only the batches' own gradients are computed, no step."""
    began, worked = time.perf_counter(), time.process_time()
    seconds: dict[str, Range] = {}
    peaks: dict[str, int] = {}
    for name, steps in STEPS.items():
        paces, spent = list[float](), 0.0
        for work, step_seconds in steps(context):
            paces.append(step_seconds / operations(work, shape))
            spent += step_seconds
            if spent > ENOUGH:
                break
        seconds[name], peaks[name] = (min(paces), max(paces)), peak_memory(context.device)
        context.model.zero_grad(set_to_none=True)
    share = (time.process_time() - worked) / (time.perf_counter() - began)
    return Speed(rate, seconds, peaks, min(1.0, share) if context.device.type == "cpu" else 1.0)


def _evaluate(context: RunContext) -> Iterator[Step]:
    evaluator = context.evaluator(generate=False)
    rows = [*context.rows, *context.general]
    for batch in _spread(by_tokens(rows, BATCH_TOKENS)):
        yield Work(forward=passes_of(batch)), _timed(evaluator.run, "plan", batch)[0]


def _generate(context: RunContext) -> Iterator[Step]:
    for batch in _spread(prompt_batches(context.config, context.rows)):
        size, prompts = len(batch), [row.ids[: row.start] for row in batch]
        limits = [1 + DECODED] * size
        seconds, texts = _timed(generate, context.model, prompts, limits, context.tokenizer)
        steps = min(DECODED, max(map(len, texts)))  # they may all have ended before
        read = Passes(1, sum(map(len, prompts)), size)
        yield Work(forward=read, generated=Passes(steps, steps * size, steps * size)), seconds


def _vanilla(context: RunContext) -> Iterator[Step]:
    for step, seconds in _gradients(context, vanilla_training(context)):
        yield Work(backward=passes_of(step)), seconds


def _unlearn(context: RunContext) -> Iterator[Step]:
    by_side = context.config.localization.freeze == "by_side"
    for step, seconds in _gradients(context, unlearn_training(context, by_side)):
        sides = {row.side: [r for r in step if r.side == row.side] for row in step}
        passes = {side: passes_of(rows, 0) for side, rows in sides.items()}
        yield unlearning_work(context.config, passes), seconds


def _gradients(context: RunContext, training: Training) -> Iterator[tuple[list[Encoded], float]]:
    """Time the gradients of training steps."""
    task, _ = training

    def run(step: Sequence[Encoded]) -> None:
        for _, rows in task.groups(step):
            if rows:
                task.run(rows, step).loss.backward()

    with in_mode(context.model, training=True):
        for step in _spread(task.plan(0)):
            yield step, _timed(run, step)[0]


def _score(context: RunContext) -> Iterator[Step]:
    scorer, settings = run_scorer(context), context.config.importance
    score_passes = len(sums.passes(trainable(context.model), settings.memory_gib))
    for rows in _spread(list(context.sides().values())):
        batch = by_tokens(rows, settings.batch_tokens, copies=scorer.draws)[-1]
        work = Work(backward=passes_of(batch * scorer.draws) * score_passes)
        yield work, _timed(scorer.score, batch)[0]


STEPS: dict[str, Callable[[RunContext], Iterator[Step]]] = {
    "vanilla": _vanilla,
    "score": _score,
    "unlearn": _unlearn,
    "evaluate": _evaluate,
    "generate": _generate,
}
"""Stage -> its timed steps, in a run's order: a process that has done a stage keeps its memory."""


def peak_memory(device: torch.device) -> int:
    """Return the most memory in bytes that this process has had so far; 0 where unknown.

    On CUDA it is that of the GPU.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if os.name != "posix":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _spread(batches: Sequence[Any]) -> Sequence[Any]:
    """Return up to ``BATCHES`` of the batches, evenly spread, the last one first."""
    return batches[:: -max(1, -(-len(batches) // BATCHES))]


def _timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, on an accelerator to its end, and what it returns."""
    wait = torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
    wait()
    began = time.perf_counter()
    result = call(*arguments)
    wait()
    return time.perf_counter() - began, result
