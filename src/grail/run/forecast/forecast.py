"""What a run will take on this machine, before it starts; writes nothing."""

from collections.abc import Collection, Iterable, Mapping
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
    hashed_bytes,
)
from grail.run.forecast.holds import set_bytes, trainings
from grail.run.forecast.machine import Range, Timing
from grail.run.forecast.pieces import choosing, stepping, surviving
from grail.run.forecast.work import Work, optimizer_steps, workload
from grail.run.inputs import Inputs
from grail.run.provenance import model_identity
from grail.run.reset import REWRITES, SURVIVORS

RETAINED = 1.3
"""The process's memory over what its first batches take: freed memory is kept in pieces."""
WRITING: Range = (0.5e-9, 5e-9)
"""Seconds for each byte of a file, until it is on the disk: a fast one, and a slow one."""
IMPORTING: Range = (4.0, 10.0)
"""Seconds that a process takes to import torch, transformers and PEFT."""

READING = ("score", "reset", "unlearn", "evaluate")
"""Stages that read the weights of a model of the run."""

NOTES = (
    "Measured: the first batches of each kind of work; choosing sets, an optimizer's step and "
    "hashing on a part of the model's tensors. Times are what follows from the fastest and from "
    "the slowest of each.",
    "Counted by rule of thumb: imports and writing files. Memory is that of a process that has "
    "done all stages so far: what batches take, and what trainings and sets hold beside them, to "
    "1.3 times that, because freed memory is kept in pieces. Files include the checkpoint that a "
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
    steps = optimizer_steps(config, context.rows)
    work = workload(config, context.rows, context.general, score_passes)
    hashed = hashed_bytes(config, shape)
    start = IMPORTING[0] + timing.loading, IMPORTING[1] + timing.loading
    memory, rates = memory_of(config, timing, work, finished), _rates(config, timing)
    stages = list[Stage]()
    for name, tokens in work.items():
        updates, size = steps.get(name, 0), sizes.get(name, 0)
        # a checkpoint is written every few steps
        saved = updates // _every(config, name) * checkpoints.get(name, 0)
        counts = [(count, timing.paces[kind]) for kind, count in tokens.items()]
        counts += [
            *((shape.trainable, rate) for rate in rates.get(name, ())),
            (updates * shape.trainable, timing.rate(stepping, config, config.unlearning.optimizer)),
            (size + saved, WRITING),
            (hashed[name] + saved, timing.hashing),
        ]
        low, high = (sum(count * pace[end] for count, pace in counts) for end in (0, 1))
        peak, files = memory[name], size + checkpoints.get(name, 0)
        space = peak, RETAINED * peak
        stages.append(Stage(name, tokens, (low, high), space, files, name in finished))
    idle = all(stage.done for stage in stages)
    stages.insert(0, Stage("start", {}, start, (timing.loaded, RETAINED * timing.loaded), 0, idle))
    left_out = ["Left out: evaluation.general_tasks."] * bool(config.evaluation.general_tasks)
    return Forecast(str(context.device), shape, tuple(stages), (*NOTES, *left_out))


def _rates(config: Config, timing: Timing) -> dict[str, list[Range]]:
    """Return the seconds for an entry of the stages that choose entries."""
    how, sets = config.unlearning.reset, config.localization
    found = {"localize": [timing.rate(choosing, config, sets)]}
    if how is not None:
        found["reset"] = [timing.rate(surviving, config, how)]
    return found


def memory_of(
    config: Config, timing: Timing, work: Mapping[str, Work], finished: Collection[str]
) -> dict[str, float]:
    """Return each stage's peak in bytes, in a process that has done those before it, if unfinished.

    Where device and machine share the memory, weights that are read again lie in a memory map for a
    moment, beside all that the process has kept; so do the sets and the weights at the start.
    """
    shape, shared = timing.shape, timing.context.device.type == "cpu"
    own: dict[str, float] = {
        name: max([timing.loaded, *(timing.peaks[kind] for kind, count in of.items() if count)])
        for name, of in work.items()
    }
    choosers = {"localize"} | ({"reset"} if config.unlearning.reset is not None else set())
    for name in choosers:
        own[name] = max(own[name], timing.loaded + shared * set_bytes(config, shape))
    for name, held in trainings(config, shape, frozen=0.0).items():
        kept = held.kept + shared * held.start
        step = timing.loaded + held.reference + kept + held.gradients
        own[name] = max(own[name] + held.earlier + kept, step)
    found, before = dict[str, float](), float(timing.loaded)
    for name in work:
        read = shared * shape.trainable_bytes * (name in READING)
        found[name] = max(before + read, own[name])
        if name not in finished:
            before = max(before, own[name])
    return found


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
