"""The training loop: loss -> masked gradient -> step; resume, log, divergence guard, proof.

Knows a task that plans rows and computes terms, and a mask; knows no objective and no side's
meaning. Freezing is exact by four rules: the gradient is masked at every step from the first on,
before its norm is taken; the optimiser is built with the mask in place; weight decay skips frozen
entries; and the end is compared with the beginning, bit by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from grail.artifacts import Mask, changed_entries, frozen_digest
from grail.errors import DivergenceError
from grail.progress import Tick, silent
from grail.training import checkpoint
from grail.training.checkpoint import Position
from grail.training.gru import averaged, rectified
from grail.training.optimizer import (
    OPTIMIZERS,
    Settings,
    cycle_progress,
    decay,
    learning_rate,
    restarts,
)
from grail.training.task import Row, Task

Write = Callable[[dict[str, Any]], None]

Sums = dict[str, Tensor]
"""Parameter name -> its gradient, added up."""

Shares = tuple[dict[str, float], dict[str, float], int]
"""Terms, accuracies by row and ascending rows of one step, of one process or of all."""


@dataclass(frozen=True)
class LoopFiles:
    """Where the loop keeps its files, and the digest of what it was started from."""

    log: Path
    checkpoints: Path
    inputs: str


class Loop:
    """One training run over the trainable parameters of a model."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        task: Task,
        mask: Mask | None,
        settings: Settings,
        accelerator: Accelerator,
    ) -> None:
        self.parameters, self.task, self.settings = parameters, task, settings
        self.accelerator, self.mask = accelerator, mask
        self.optimizer = OPTIMIZERS[settings.optimizer](list(parameters.values()), settings)
        self.hidden = {} if mask is None else self._hidden(mask)
        self.direction: dict[str, Tensor] = {}  # moving average of retain gradients (rectify)
        self.start = self._frozen_start()

    def run(self, place: LoopFiles, tick: Tick = silent) -> dict[str, Any]:
        """Train to the end (or go on where a checkpoint stands) and return the proof of freezing.

        Raises:
            DivergenceError: if a term or the gradient is not finite; the last checkpoint stays.
            RuntimeError: if a frozen entry moved after all.
        """
        position, self.direction = checkpoint.load(
            place.checkpoints, self.parameters, self.optimizer, place.inputs
        )
        self.accelerator.wait_for_everyone()  # all have looked
        if not position.step and self.accelerator.is_main_process:
            checkpoint.discard(place.checkpoints)
        with checkpoint.lines(place.log, position.step, self.accelerator.is_main_process) as write:
            while position.epoch < self.settings.epochs:
                plan = self.task.plan(position.epoch, position.planned)
                self._epoch(plan, position, place, write, tick)
                position.epoch, position.index = position.epoch + 1, 0
                position.planned = dict(position.seen)
        return self._proof()

    def _epoch(
        self, plan: list[list[Row]], position: Position, place: LoopFiles, write: Write, tick: Tick
    ) -> None:
        total = position.step - position.index + len(plan) * (self.settings.epochs - position.epoch)
        if not position.index and restarts(self.settings, position.epoch):
            self.optimizer.state.clear()
            self.direction.clear()
        while position.index < len(plan):
            began = time.perf_counter()
            done = cycle_progress(self.settings, position.epoch + position.index / len(plan))
            rate = learning_rate(self.settings, done)
            line = self._step(plan[position.index], position, rate, place)
            position.step, position.index = position.step + 1, position.index + 1
            write(line | {"seconds": round(time.perf_counter() - began, 4)})
            self.accelerator.log(line["terms"], step=position.step)
            tick(position.step, total, _note(line))
            if position.step % self.settings.checkpoint_steps == 0:
                self._save(place, position)

    def _step(
        self, rows: list[Row], position: Position, rate: float, place: LoopFiles
    ) -> dict[str, Any]:
        """Do one optimiser step and return its line of the log."""
        number = position.step + 1
        with _seeded(self.settings.seed, number, self.accelerator.process_index):
            shares, sides = self._gradients(rows, position)
        terms, accuracy, ascending = self._over_processes(*shares)
        _finite(terms, number, position.step, place)
        self._combine(sides)
        norm = self._clip()
        _finite({"gradient norm": norm}, number, position.step, place)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.settings.weight_decay:
            frozen = {} if self.mask is None else self.mask.frozen
            decay(self.parameters, frozen, rate * self.settings.weight_decay)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        position.seen |= {key: (position.epoch, value) for key, value in accuracy.items()}
        line = {"step": number, "epoch": position.epoch, "lr": rate, "terms": terms}
        return line | {"gradient_norm": norm, "ascending": ascending}

    def _gradients(self, rows: list[Row], position: Position) -> tuple[Shares, dict[str, Sums]]:
        """Return this process's terms and accuracies, and its masked gradient by group."""
        sides: dict[str, Sums] = {}
        terms: dict[str, float] = {}
        accuracy: dict[str, float] = {}
        ascending = 0
        for side, members in self.task.groups(rows):
            for micro in self._micro_batches(members):
                outcome = self.task.run(micro, rows, position.seen)
                outcome.loss.backward()  # accelerate would divide it: shares are scaled already
                accuracy |= outcome.accuracy
                ascending += outcome.ascending
                for name, value in outcome.terms.items():
                    terms[name] = terms.get(name, 0.0) + float(value.detach())
            sides[side] = self._collect(side)
        return (terms, accuracy, ascending), sides

    def _combine(self, sides: dict[str, Sums]) -> None:
        """Leave the gradient of all groups and processes in ``p.grad``."""
        if self.settings.rectify:
            unlearn, retain = self._summed(sides["unlearn"]), self._summed(sides["retain"])
            self.direction = averaged(self.direction, retain)
            direction = self._masked(self.direction, "unlearn")  # the correction is a move too
            sides = {"unlearn": rectified(unlearn, direction), "retain": retain}
        total, *others = sides.values()
        for other in others:
            total = {name: total[name] + other[name] for name in total}
        if not self.settings.rectify:
            total = self._summed(total)
        for name, parameter in self.parameters.items():
            parameter.grad = total[name]

    def _micro_batches(self, rows: list[Row]) -> list[list[Row]]:
        """This process's rows, in ``accumulation`` pieces."""
        own = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        pieces = [own[i :: self.settings.accumulation] for i in range(self.settings.accumulation)]
        return [piece for piece in pieces if piece]

    def _collect(self, side: str) -> Sums:
        """Take a group's own contribution and mask it: nothing of other groups is touched."""
        own: Sums = {}
        for name, parameter in self.parameters.items():
            gradient = parameter.grad
            own[name] = torch.zeros_like(parameter) if gradient is None else gradient
            parameter.grad = None
        return self._masked(own, side)

    def _masked(self, gradients: Sums, side: str) -> Sums:
        """Return gradients without what a group must leave alone.

        Filled, not multiplied: 0 * -x is -0.0, and 0 * inf is NaN.
        """
        hidden = self.hidden[side] if self.hidden else {}  # KeyError: task and mask disagree
        return {
            name: value.masked_fill(hidden[name], 0.0) if name in hidden else value
            for name, value in gradients.items()
        }

    def _summed(self, gradients: Sums) -> Sums:
        """Add gradients over processes: every row's share is already scaled."""
        if self.accelerator.num_processes == 1:
            return gradients
        return {n: self.accelerator.reduce(g, "sum") for n, g in gradients.items()}  # type: ignore

    def _over_processes(
        self, terms: dict[str, float], accuracy: dict[str, float], ascending: int
    ) -> Shares:
        """Add terms over processes: every row's share is already scaled."""
        if self.accelerator.num_processes == 1:
            return terms, accuracy, ascending
        every: list[Shares] = gather_object([(terms, accuracy, ascending)])
        names = sorted({name for other, _, _ in every for name in other})
        added = {name: math.fsum(own.get(name, 0.0) for own, _, _ in every) for name in names}
        rows = {key: value for _, own, _ in every for key, value in own.items()}
        return added, rows, sum(count for _, _, count in every)

    def _clip(self) -> float:
        limit = self.settings.max_grad_norm
        gradients = list(self.parameters.values())
        return float(nn.utils.clip_grad_norm_(gradients, math.inf if limit is None else limit))

    def _save(self, place: LoopFiles, position: Position) -> None:
        if self.accelerator.is_main_process:
            state = checkpoint.State(self.optimizer, position, self.direction)
            checkpoint.save(place.checkpoints, self.parameters, state, place.inputs)
        self.accelerator.wait_for_everyone()

    def _hidden(self, mask: Mask) -> dict[str, dict[str, Tensor]]:
        """Return what each group of rows must leave alone; "" is all rows in one."""
        if mask.by_side:
            return {s: self._on_device(mask.for_side(s)) for s in ("unlearn", "retain")}
        return dict.fromkeys(("", "unlearn", "retain"), self._on_device(mask.frozen))

    def _on_device(self, bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.parameters[name].device) for name, value in bits.items()}

    def _frozen_start(self) -> dict[str, Tensor]:
        if self.mask is None:
            return {}
        return {n: self.parameters[n].detach().cpu().clone() for n in self.mask.frozen}

    def _proof(self) -> dict[str, Any]:
        """Compare every frozen entry with its value before training, bit by bit."""
        if self.mask is None:
            return {}
        after = {name: self.parameters[name].detach().cpu() for name in self.mask.frozen}
        moved = {n: changed_entries(self.start[n], after[n]) for n in after}
        changed = sum(int((moved[n] & self.mask.frozen[n].flatten()).sum()) for n in after)
        if changed:
            raise RuntimeError(f"{changed} frozen entries changed: the freezing is broken")
        return {
            **self.mask.counts(),
            "changed": changed,
            "moved": sum(int(bits.sum()) for bits in moved.values()),
            "sha256_before": frozen_digest(self.start, self.mask),
            "sha256_after": frozen_digest(after, self.mask),
        }


@contextmanager
def _seeded(seed: int, step: int, process: int) -> Iterator[None]:
    """Make dropout a function of (seed, step, process): a resumed run draws what it would have."""
    value = (seed * 1_000_003 + step) * 1009 + process
    with torch.random.fork_rng():
        # torch.manual_seed would note a stack for every absent accelerator: milliseconds a step
        torch.default_generator.manual_seed(value)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(value)
        yield


def _finite(values: Mapping[str, float], step: int, good: int, place: LoopFiles) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            kept = (
                f"checkpoint in {place.checkpoints}" if place.checkpoints.exists() else "none yet"
            )
            raise DivergenceError(
                f"step {step}: {name} is {value}; step {good} was the last finite one "
                f"(last good checkpoint: {kept}). Lower the learning rate, or bound the ascent "
                "with unlearning.max_token_nll or unlearning.until."
            )


def _note(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in line["terms"].items())
