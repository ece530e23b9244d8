"""What a run will take on this machine, before it starts; writes nothing."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grail.artifacts import inputs_of
from grail.config.file import run_settings
from grail.config.run import Config
from grail.config.teach import Teach
from grail.importance.sums import passes
from grail.model.forward import trainable
from grail.run.directory import has_mask
from grail.run.forecast.cost import (
    Shape,
    checkpoint_bytes,
    file_bytes,
    proof_bytes,
    set_bytes,
)
from grail.run.forecast.machine import Range, Timing
from grail.run.forecast.work import Work, optimizer_steps, workload
from grail.run.inputs import Inputs
from grail.run.provenance import model_identity
from grail.run.reset import REWRITES, SURVIVORS

RETAINED = 1.3
"""The process's memory over what its first batches take: freed memory is kept in pieces."""
SELECTING: Range = (30e-9, 240e-9)
"""Seconds for each entry and selection of Stage 2, which selects twice on every side."""
STEPPING: Range = (10e-9, 60e-9)
"""Seconds of an optimiser's step for each entry: mask, norm, moments, and the log's share."""
WRITING: Range = (3e-9, 12e-9)
"""Seconds for each byte of a file, which is written, synced, and hashed two or three times."""
IMPORTING: Range = (4.0, 10.0)
"""Seconds that a process takes to import torch, transformers and PEFT."""

NOTES = (
    "Measured: the first batches of each kind of work. Times are what follows from the fastest and "
    "from the slowest batch.",
    "Counted by rule of thumb: imports, optimizer steps, writing and hashing files. Memory is that "
    "of a process that has done all stages so far, from what the first batches take to 1.3 times "
    "that, because freed memory is not returned at once. Files include the checkpoint that a "
    "training drops at its end.",
    "At most: a stage may end earlier, and then it takes less (known or unlearned rows are "
    "skipped; a generation ends with its end token).",
)


@dataclass(frozen=True)
class Stage:
    """One stage as planned.

    Attributes:
        name: Its name.
        work: What it computes, in tokens.
        seconds: From and to.
        memory: The process's peak in bytes, from and to.
        files: Bytes that it writes.
        done: Whether the run directory has its output, from the same settings and data.
    """

    name: str
    work: Work
    seconds: Range
    memory: Range
    files: int
    done: bool


@dataclass(frozen=True)
class Forecast:
    """What a run will take: where, the model in numbers, the stages in order, and notes."""

    device: str
    shape: Shape
    stages: tuple[Stage, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> dict[str, Range]:
        """Seconds and peak bytes of the stages that are still to be done."""
        return total_of(stage for stage in self.stages if not stage.done)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self) | {"total": self.total}


def total_of(stages: Iterable[Stage]) -> dict[str, Range]:
    """Return {"seconds", "memory"}: the sum, and the peak in bytes."""
    low, high, peak = 0.0, 0.0, (0.0, 0.0)
    for stage in stages:
        low, high = low + stage.seconds[0], high + stage.seconds[1]
        peak = max(peak, stage.memory)
    return {"seconds": (low, high), "memory": peak}


def plan_of(config: Config, inputs: Inputs, timing: Timing) -> Forecast:
    """Return the plan of a run on the timed model and rows; its other settings may differ."""
    context, shape, finished = timing.context, timing.shape, done(config, inputs)
    score_passes = len(passes(trainable(context.model), config.importance.memory_gib))
    sizes, checkpoints = file_bytes(config, shape), checkpoint_bytes(config, shape)
    # What timing leaves out: optimiser state and a masked copy of the gradients, together as large
    # as a checkpoint; the masters of weights in 16 bits; the proof of freezing; the sets.
    masters = shape.master_bytes * (shape.master_bytes > shape.trainable_bytes)
    resets = config.unlearning.reset is not None
    untimed = {name: size + masters for name, size in checkpoints.items()}
    untimed["unlearn"] += proof_bytes(config, shape)
    sets = set_bytes(config, shape)
    untimed |= {"localize": sets, "reset": sets * resets}
    steps = optimizer_steps(config, context.rows)
    begun = timing.libraries + shape.bytes
    start = IMPORTING[0] + timing.loading, IMPORTING[1] + timing.loading
    stages = list[Stage]()
    for name, work in workload(config, context.rows, context.general, score_passes).items():
        low, high = (
            sum(tokens * timing.paces[kind][end] for kind, tokens in work.items()) for end in (0, 1)
        )
        if name == "localize" or (name == "reset" and resets):
            selections = 4 * len(config.domains) * shape.trainable
            low, high = low + selections * SELECTING[0], high + selections * SELECTING[1]
        # a checkpoint is written every few steps
        updates, size = steps.get(name, 0), sizes.get(name, 0)
        size += updates // _every(config, name) * checkpoints.get(name, 0)
        low += updates * shape.trainable * STEPPING[0] + size * WRITING[0]
        high += updates * shape.trainable * STEPPING[1] + size * WRITING[1]
        timed = max([begun, *(timing.peaks[kind] for kind in work)])
        peak = timed + untimed.get(name, 0)
        files = sizes.get(name, 0) + checkpoints.get(name, 0)
        memory = peak, RETAINED * peak
        stages.append(Stage(name, work, (low, high), memory, files, name in finished))
    idle = all(stage.done for stage in stages)
    stages.insert(0, Stage("start", {}, start, (begun, RETAINED * begun), 0, idle))
    left_out = ["Left out: evaluation.general_tasks."] * bool(config.evaluation.general_tasks)
    return Forecast(str(context.device), shape, tuple(stages), (*NOTES, *left_out))


def _every(config: Config, stage: str) -> int:
    """Return the steps between two checkpoints of a stage."""
    section = config.unlearning if stage == "unlearn" else (config.teach or Teach())
    return section.checkpoint_steps


def done(config: Config, inputs: Inputs) -> set[str]:
    """Return the stages whose output the run directory has, from the same settings and data."""
    folder, settings = Path(config.output), config.unlearning
    found = run_settings(folder)
    source = found.pop("made_with", None) or {}
    wanted = inputs.digests, model_identity(config.model.name, config.adapter)
    same = found == config.model_dump(mode="json", exclude={"made_with"})
    if not same or (source.get("data"), source.get("model")) != wanted:
        return set()
    sides = [f"{name}.{side}" for name in config.domains for side in ("unlearn", "retain")]
    files = {
        "vanilla": ["vanilla"],
        "score": [f"scores/{side}.safetensors" for side in sides],
        "reset": [SURVIVORS] * (settings.reset is not None),
        "unlearn": ["unlearned"],
    }
    made = {name: None not in (inputs_of(folder / f) for f in of) for name, of in files.items()}
    made["localize"] = has_mask(folder, config.localization.freeze == "by_side", lambda _: None)
    made["reset"] &= not (settings.rewrites or settings.guesses) or (folder / REWRITES).is_file()
    made["evaluate"] = (folder / "results.json").is_file()
    return {name for name, whole in made.items() if whole}
