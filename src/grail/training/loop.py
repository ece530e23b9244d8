"""The training loop: loss -> masked gradient -> step; resume, log, divergence guard, proof.

The loop gets a task, which plans rows and computes losses, and a mask. It does not know which
objective the task has, nor what a side means.
"""

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from grail.artifacts import Mask
from grail.data.encode import Encoded
from grail.data.samples import grouped
from grail.errors import DivergenceError
from grail.files import recover_folder
from grail.model.sharded import part, summed
from grail.progress import Tick, silent
from grail.training.checkpoint import State, load_checkpoint, save_checkpoint, training_log
from grail.training.freezing import Freezing, Gradients
from grail.training.gru import averaged, rectified
from grail.training.looks import NO_LOOKS, Looks, Seen
from grail.training.optimizer import (
    OPTIMIZERS,
    LoopSettings,
    cycle_progress,
    gradient_norm,
    learning_rate,
    masters_of,
    restarts,
    take_gradients,
    trains_vector,
    write_back,
)
from grail.training.task import Task

_Share = tuple[dict[str, float], dict[str, float], int]
"""Terms, accuracies by row, and ascending rows of one micro-batch."""


@dataclass(frozen=True)
class LoopFiles:
    """The log file, the checkpoint folder, and the digest of what the training starts from."""

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
        settings: LoopSettings,
        accelerator: Accelerator,
    ) -> None:
        self.whole, self.task, self.settings = parameters, task, settings
        self.accelerator = accelerator
        self.sharded = any(part(p) is not p for p in parameters.values())
        how = "" if self.sharded else settings.optimizer  # parts are not compressed
        self.freezing = Freezing(parameters, mask, partial(trains_vector, how))
        self.parameters = self.freezing.parameters  # this process's parts of a model in parts
        self.masters = masters_of(self.parameters, self.freezing.vectors)
        self.tracked = mask is not None  # Stage 3 alone: some trackers drop steps that start anew
        self.looked: list[Seen] = []
        self.optimizer = OPTIMIZERS[settings.optimizer](list(self.masters.values()), settings)

    def run(self, files: LoopFiles, tick: Tick = silent, looks: Looks = NO_LOOKS) -> dict[str, Any]:
        """Train to the end, from the checkpoint if there is one, and return the proof of freezing.

        With bounds, ``looks`` say when the end is reached, and the best weights are those left.
        What the looks found is in ``self.looked``, rows as in ``steps.json``.

        Raises:
            DivergenceError: if a term or the gradient is not finite; the last checkpoint stays.
            RuntimeError: if a frozen entry moved after all.
        """
        state, settings = self._resume(files), self.settings
        self._look(looks, state, 1)
        with training_log(files.log, state.step, self.accelerator.is_main_process) as write:
            while state.epoch < settings.epochs and not looks.end(state.looks):
                plan = self.task.plan(state.epoch)
                total = state.step - state.index + len(plan) * (settings.epochs - state.epoch)
                if not state.index and restarts(settings, state.epoch):
                    self.optimizer.state.clear()
                    state.direction.clear()
                while state.index < len(plan) and not looks.end(state.looks):
                    began = time.perf_counter()
                    done = cycle_progress(settings, state.epoch + state.index / len(plan))
                    rows, rate = plan[state.index], learning_rate(settings, done)
                    line = self._step(rows, state, rate, files)
                    write(line | {"seconds": round(time.perf_counter() - began, 4)})
                    if self.tracked:
                        self.accelerator.log(line["terms"], step=state.step)
                    note = ", ".join(f"{name} {v:.2f}" for name, v in line["terms"].items())
                    tick(state.step, total, note)
                    self._look(looks, state, len(plan))
                    if state.step % settings.checkpoint_steps == 0:
                        self._save(state, files)
                if state.index >= len(plan):
                    state.epoch, state.index = state.epoch + 1, 0
        self._look(looks, state, 1, last=True)
        self._put_best(state)
        self.looked = state.looks
        return self.freezing.proof()

    def _look(self, looks: Looks, state: State, steps: int, last: bool = False) -> None:
        """Look at the model where a look is due; ``steps`` are those of an epoch."""
        due = last or state.step % looks.every == 0 if looks.every else False
        if not due or any(row["step"] == state.step for row in state.looks):
            return
        where = {"step": state.step, "epoch": round(state.epoch + state.index / steps, 4)}
        (found,) = broadcast_object_list([looks.measure()])  # all processes decide alike
        state.looks += [where | row for row in found]
        if looks.bounds and looks.kept(state.looks) == state.step:
            state.best = {name: p.detach().clone() for name, p in self.masters.items()}

    @torch.no_grad()
    def _put_best(self, state: State) -> None:
        if not state.best:
            return  # the proof must see the parameters as the training left them
        for name, best in state.best.items():
            self.masters[name].copy_(best)
        write_back(self.masters, self.parameters, self.freezing.vectors)

    def _step(
        self, rows: list[Encoded], state: State, rate: float, files: LoopFiles
    ) -> dict[str, Any]:
        """Do one optimiser step on ``rows`` and return its line of the log."""
        number = state.step + 1
        shares: list[_Share] = []
        gradients: dict[str, Gradients] = {}  # by side, masked
        with _seeded(self.settings.seed, number, self.accelerator.process_index):
            for side, members in self.task.groups(rows):
                pieces, weight = self._micro_batches(members)
                for micro_batch in pieces:
                    result = self.task.run(micro_batch, rows)
                    # accelerate would divide the loss: it is scaled already
                    (result.loss if weight == 1 else result.loss * weight).backward()
                    terms = {name: float(value.detach()) for name, value in result.terms.items()}
                    if weight == 1 or self.accelerator.is_main_process:
                        shares.append((terms, result.accuracy, result.ascending))
                gradients[side] = self.freezing.masked(self._taken(), side)
        terms, accuracy, ascending = _added(gather_object(shares))
        _check_finite(terms, number, files)
        for name, gradient in self._combined(gradients, state).items():
            self.masters[name].grad = gradient
        norm = self._clipped()
        _check_finite({"gradient norm": float(norm)}, number, files)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.settings.weight_decay:
            self.freezing.decay(self.masters, rate * self.settings.weight_decay)
        self.optimizer.step()
        write_back(self.masters, self.parameters, self.freezing.vectors)
        self.optimizer.zero_grad(set_to_none=True)
        self.task.history.saw(state.epoch, accuracy)
        state.step, state.index = number, state.index + 1
        line = {"step": number, "epoch": state.epoch, "lr": rate, "terms": terms}
        return line | {"gradient_norm": float(norm), "ascending": ascending}

    def _taken(self) -> Gradients:
        return take_gradients(self.whole, self.masters, self.freezing.vectors)

    def _clipped(self) -> Tensor:
        """Clip the gradients by their norm over all processes, which is returned."""
        norm = gradient_norm(self.masters, self.freezing.vectors)
        if self.sharded:
            norm = norm.new_tensor(summed(float(norm.double().square()), True)).sqrt()
        limit = self.settings.max_grad_norm or math.inf
        nn.utils.clip_grads_with_norm_(self.masters.values(), limit, norm)
        return norm

    def _micro_batches(self, rows: list[Encoded]) -> tuple[list[list[Encoded]], float]:
        """Return this process's rows, in ``accumulation`` pieces, and the weight of their loss."""
        index, count = self.accelerator.process_index, self.accelerator.num_processes
        number = self.settings.accumulation
        if self.sharded:
            return _in_step(rows, index, count, number)
        share = rows[index::count]
        return [piece for i in range(number) if (piece := share[i::number])], 1.0

    def _combined(self, sides: dict[str, Gradients], state: State) -> Gradients:
        """Return the gradient of all sides and processes, rectified if the settings say so."""
        if self.settings.rectify:
            sides = {side: self._summed(gradients) for side, gradients in sides.items()}
            state.direction = averaged(state.direction, sides["retain"])
            direction = self.freezing.masked(state.direction, "unlearn")  # corrections move, too
            over_all = partial(summed, sharded=self.sharded)
            sides["unlearn"] = rectified(sides["unlearn"], direction, over_all)
        total, *others = sides.values()
        for other in others:
            total = {name: total[name] + other[name] for name in total}
        return total if self.settings.rectify else self._summed(total)

    def _summed(self, gradients: Gradients) -> Gradients:
        """Add gradients over processes: the loss of every row is scaled already."""
        if self.accelerator.num_processes == 1 or self.sharded:  # FSDP2 has added them up
            return gradients
        return {n: self.accelerator.reduce(g, "sum") for n, g in gradients.items()}  # type: ignore

    def _resume(self, files: LoopFiles) -> State:
        """Load the checkpoint of the same inputs, or remove that of others, whose log is lost."""
        if self.accelerator.is_main_process:
            recover_folder(files.checkpoints)
        self.accelerator.wait_for_everyone()
        for parameter in self.whole.values():
            parameter.grad = None  # of whoever used the model before
        vectors = self.freezing.vectors
        state = load_checkpoint(
            files.checkpoints, self.masters, self.optimizer, files.inputs, self.whole, vectors
        )
        write_back(self.masters, self.parameters, vectors)
        self.accelerator.wait_for_everyone()  # every process has read it
        if state.step:
            self.task.history.load_state(state.task)
        elif self.accelerator.is_main_process:
            shutil.rmtree(files.checkpoints, ignore_errors=True)
        return state

    def _save(self, state: State, files: LoopFiles) -> None:
        main = self.accelerator.is_main_process
        if main or self.sharded:
            state.task = self.task.history.state()
            folder, inputs = files.checkpoints if main else None, files.inputs
            save_checkpoint(folder, self.masters, self.optimizer, state, inputs, self.whole)
        self.accelerator.wait_for_everyone()


def _in_step(
    rows: list[Encoded], index: int, count: int, pieces: int
) -> tuple[list[list[Encoded]], float]:
    """Return a process's pieces of a step, and the weight of their loss, for a model in parts.

    All processes must do the same passes, so that each piece has rows of every side. Where a side
    has too few for that, every process reads all rows, and its loss counts for its share.
    """
    sides = grouped(rows, lambda row: row.side)
    if min(map(len, sides.values()), default=0) < count * pieces:
        return [piece for i in range(pieces) if (piece := rows[i::pieces])], 1 / count
    starts = range(index, count * pieces, count)
    return [[r for of in sides.values() for r in of[i :: count * pieces]] for i in starts], 1.0


def _added(shares: list[_Share]) -> _Share:
    """Add up the terms and ascending rows of a step's micro-batches, over all processes."""
    names = dict.fromkeys(name for terms, _, _ in shares for name in terms)
    total = {name: math.fsum(terms.get(name, 0.0) for terms, _, _ in shares) for name in names}
    accuracy = {key: value for _, rows, _ in shares for key, value in rows.items()}
    return total, accuracy, sum(ascending for _, _, ascending in shares)


@contextmanager
def _seeded(seed: int, step: int, process: int) -> Iterator[None]:
    """Make dropout a function of (seed, step, process), so that a resumed run draws the same."""
    value = (seed * 1_000_003 + step) * 1009 + process
    with torch.random.fork_rng():
        # torch.manual_seed would note a stack for every absent accelerator: milliseconds a step
        torch.default_generator.manual_seed(value)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(value)
        yield


def _check_finite(values: Mapping[str, float], step: int, files: LoopFiles) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            folder = files.checkpoints
            checkpoint = f"checkpoint in {folder}" if folder.exists() else "none yet"
            raise DivergenceError(
                f"step {step}: {name} is {value}; step {step - 1} was the last finite one "
                f"(last good checkpoint: {checkpoint}). Lower the learning rate, or bound the "
                "ascent with unlearning.max_token_nll or unlearning.until."
            )
