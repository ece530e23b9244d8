"""What a run will take on this machine, before it starts; nothing is written to its directory."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from grail import artifacts
from grail.config.file import run_settings
from grail.config.run import Config
from grail.forecast.cost import (
    Range,
    Shape,
    Speed,
    artifact_bytes,
    memory,
    operations,
    seconds,
    selecting,
)
from grail.forecast.machine import rate_of, shape_of, speed_of
from grail.forecast.outline import at_hand, outline
from grail.forecast.work import Reading, Work, Workload, workload
from grail.importance.sums import passes
from grail.model.forward import Policy, trainable
from grail.model.packing import packs
from grail.progress import Listener
from grail.run.context import RunContext
from grail.run.directory import has_mask
from grail.run.inputs import Inputs
from grail.run.provenance import model_identity

RETAINED = 2.0
"""The process's memory over what it needs: freed memory is kept for later (measured: up to 1.7)."""


@dataclass(frozen=True)
class Stage:
    """One stage as planned.

    Attributes:
        name: Its name; "generate" is the part of evaluation that continues prompts.
        work: What it computes.
        operations: Floating-point operations.
        seconds: From and to.
        memory: Bytes of its tensors at its peak.
        done: Whether the run directory has its outcome, from the same settings and data.
    """

    name: str
    work: Work
    operations: float
    seconds: Range
    memory: float
    done: bool


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        device: Where it would compute.
        shape: The model in numbers.
        speed: What was measured.
        counts: "domain.side.part" -> (rows, tokens, answer tokens).
        stages: The stages in order.
        artifacts: Name -> bytes on disk.
        libraries: Bytes that Python and the libraries take, on top of every stage.
        notes: What was measured, what assumed, what left out.
    """

    device: str
    shape: Shape
    speed: Speed
    counts: dict[str, tuple[int, int, int]]
    stages: tuple[Stage, ...]
    artifacts: dict[str, int]
    libraries: int
    notes: tuple[str, ...]

    @property
    def seconds(self) -> Range:
        """All stages that are still to be done."""
        left = [stage.seconds for stage in self.stages if not stage.done]
        return sum(low for low, _ in left), sum(high for _, high in left)

    @property
    def memory(self) -> Range:
        """The peak of the stages that are still to be done, in bytes."""
        return self.peak(max((s.memory for s in self.stages if not s.done), default=0.0))

    def peak(self, tensors: float) -> Range:
        """Return what the process may have in memory where a stage's tensors take so much."""
        needed = self.libraries + tensors
        return needed, needed * RETAINED

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        sums = {"seconds": self.seconds, "memory": self.memory}
        shape = asdict(self.shape) | {"trainable": self.shape.trainable}
        del shape["tensors"]
        return asdict(self) | {"shape": shape, "total": sums}


@dataclass(frozen=True)
class Measured:
    """A model and rows as read, and this machine as timed with them: enough for many plans."""

    context: RunContext
    model: Policy
    shape: Shape
    speed: Speed
    how: str
    libraries: int


def make_forecast(config: Config, inputs: Inputs, listener: Listener) -> Forecast:
    """Count what is to be done, measure this machine for a few seconds, and estimate the rest.

    Raises:
        InputError: if the tokenizer or the model cannot be read.
    """
    return plan_of(config, inputs, measure(config, inputs, listener))


def measure(config: Config, inputs: Inputs, listener: Listener) -> Measured:
    """Read the model and the rows, and time this machine with them for a few seconds.

    Raises:
        InputError: if the tokenizer or the model cannot be read.
    """
    where = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = where or torch.device("cpu")
    context = RunContext(config, inputs, listener, device)
    libraries = _resident()
    with listener.stage("measure") as tick:
        if at_hand(config.model.name):
            model, how = context.model, MEASURED
            speed = speed_of(model, context.rows, context.tokenizer, config)
        else:
            model, how = outline(config), ASSUMED
            speed = Speed(rate_of(device, _dtype(model)))
        tick(1, 1, "done")
    return Measured(context, model, shape_of(model), speed, how, libraries)


def plan_of(config: Config, inputs: Inputs, found: Measured) -> Forecast:
    """Return the plan of a run on the measured model and rows; its other settings may differ."""
    context, model, speed, shape = found.context, found.model, found.speed, found.shape
    reading = Reading(packed=packs(model) or _would_pack(config, context.device, found.how))
    groups = len(passes(trainable(model), config.importance.memory_gib))
    work = workload(config, context.rows, context.general, reading, groups)
    sides, finished = 2 * len(config.domains), done(config, inputs)
    stages = tuple(
        Stage(
            name,
            own,
            operations(own, shape),
            selecting(shape, sides) if name == "localize" else seconds(own, shape, speed),
            memory(name, own, shape, speed, config),
            name in finished,
        )
        for name, own in work.stages.items()
    )
    notes = (found.how, LEFT_OUT, *_more(config, work, speed))
    sizes = artifact_bytes(config, shape, sides)
    where = str(context.device)
    return Forecast(where, shape, speed, work.counts, stages, sizes, found.libraries, notes)


MEASURED = (
    "Measured: matrix products, one pass forward, one forward and backward and a few decoding "
    "steps on rows of middling length. Times are from 0.8 to 1.6 times what follows from them."
)
ASSUMED = (
    "The model is not on this machine, or too large for its memory: only matrix products were "
    "measured. Times assume that a pass takes 1.5 to 6 times as long as its matrix products alone; "
    "memory leaves out what is kept for the backward pass."
)
ALONE = 0.8
"""Share of a core from which on a machine does not count as busy."""
LEFT_OUT = (
    "Assumed: scoring a token takes as long as training with it. Left out: loading, optimiser "
    "steps, reading and writing files. Memory is from what tensors and libraries need to twice "
    "that, because freed memory is not returned at once."
)


def _more(config: Config, work: Workload, speed: Speed) -> list[str]:
    notes = []
    if speed.share < ALONE:
        notes.append(
            f"This machine is busy: the measurement had {100 * speed.share:.0f} % of a core. The "
            "shorter times are those without other work, the longer ones as busy as now."
        )
    if any(stage.at_most for stage in work.stages.values()):
        notes.append(
            "At most: the stage may end earlier, and then it takes less (rows that are known, or "
            "unlearned, rest; a generation ends with its end token)."
        )
    if config.evaluation.general_tasks:
        notes.append("Left out: evaluation.general_tasks.")
    return notes


def _would_pack(config: Config, device: torch.device, how: str) -> bool:
    """Tell what will probably be so of a model whose outline alone is at hand."""
    asked = config.model.attention
    return how == ASSUMED and (asked == "packed" or (asked == "auto" and device.type == "cpu"))


def done(config: Config, inputs: Inputs) -> set[str]:
    """Return the stages whose outcome the run directory has, from the same settings and data."""
    folder = Path(config.output)
    found = run_settings(folder)
    about = found.pop("made_with", None) or {}
    same = found == config.model_dump(mode="json", exclude={"made_with"})
    if not same or about.get("data") != inputs.digests:
        return set()
    if about.get("model") != model_identity(config.model.name):
        return set()
    sides = [f"{name}.{side}" for name in config.domains for side in ("unlearn", "retain")]
    files = {
        "vanilla": [folder / "vanilla"],
        "score": [folder / "scores" / f"{side}.safetensors" for side in sides],
        "unlearn": [folder / "unlearned"],
    }
    there = {name for name, own in files.items() if None not in map(artifacts.inputs_of, own)}
    if has_mask(folder, config.localization.freeze == "by_side"):
        there.add("localize")
    return there | ({"evaluate", "generate"} if (folder / "results.json").is_file() else set())


def _dtype(model: Policy) -> torch.dtype:
    return next(model.parameters()).dtype


def _resident() -> int:
    """Return the most memory that this process has had so far, in bytes; 0 where unknown."""
    if os.name != "posix":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
