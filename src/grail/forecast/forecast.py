"""What a run will take on this machine, before it starts; writes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from grail import artifacts
from grail.config.file import run_settings
from grail.config.run import Config
from grail.data.encode import Encoded
from grail.forecast.cost import Range, Shape, artifact_bytes, operations, shape_of
from grail.forecast.machine import STEPS, Speed, peak_memory, rate_of, speed_of
from grail.forecast.outline import at_hand, outline
from grail.forecast.work import Passes, Work, models_of, passes_of, workload
from grail.importance.sums import passes
from grail.model.forward import Policy, trainable
from grail.progress import Listener
from grail.run.context import RunContext
from grail.run.directory import has_mask
from grail.run.inputs import Inputs
from grail.run.provenance import model_identity

RETAINED = 1.6
"""The process's memory over what its first batches take: freed memory is kept in pieces."""
UNTIMED: Range = (1.5, 6.0)
"""How much longer than its matrix products alone a pass takes, where none was timed."""
LARGE, LONGEST = 1024, 30.0
"""A model is not timed if the products of so many tokens take more than so many seconds."""
SELECTING: Range = (30e-9, 240e-9)
"""Seconds for each entry and selection of Stage 2, which selects twice on every side."""
BUSY = 0.8
"""Share of a core below which the machine counts as busy."""

TIMED = (
    "Measured: matrix products, and the first batches of every stage. Times are what follows from "
    "the fastest and from the slowest batch."
)
COUNTED = (
    "The model is not on this machine, or too large for it: only matrix products were measured. "
    "Times assume that a pass takes 1.5 to 6 times as long as its matrix products alone; memory "
    "leaves out activations."
)
LEFT_OUT = (
    "Left out: loading, optimizer steps, reading and writing files. Memory is that of a process "
    "that has done all stages so far, from what the first batches take to 1.6 times that, because "
    "freed memory is not returned at once."
)
AT_MOST = (
    "At most: the stage may end earlier, and then it takes less (known or unlearned rows are "
    "skipped; a generation ends with its end token)."
)


@dataclass(frozen=True)
class Stage:
    """One stage as planned.

    Attributes:
        name: Its name; "generate" is the part of evaluation that continues prompts.
        work: What it computes.
        operations: Floating-point operations.
        seconds: From and to.
        memory: Bytes at its peak, on top of the libraries.
        done: Whether the run directory has its output, from the same settings and data.
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
        models: How many models it evaluates.
        counts: "domain.side.part" -> (rows, tokens, answer tokens).
        stages: The stages in order.
        artifacts: Name -> bytes on disk.
        libraries: Bytes that Python and the libraries take, on top of every stage.
        notes: What was measured, what assumed, what left out.
    """

    device: str
    shape: Shape
    speed: Speed
    models: int
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

    def peak(self, stage_bytes: float) -> Range:
        """Return the process's peak memory in bytes, given a stage's own."""
        least = self.libraries + stage_bytes
        return least, least * RETAINED

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        shape = asdict(self.shape) | {"trainable": self.shape.trainable}
        del shape["tensors"]
        total = {"seconds": self.seconds, "memory": self.memory}
        return asdict(self) | {"shape": shape, "total": total}


@dataclass(frozen=True)
class Timing:
    """A model and rows, and this machine as timed with them: enough to plan many runs."""

    context: RunContext
    model: Policy
    shape: Shape
    speed: Speed
    libraries: int
    note: str


def measure(config: Config, inputs: Inputs, listener: Listener) -> Timing:
    """Load the model (its shapes alone, if it does not fit) and time this machine with it.

    Raises:
        InputError: if the tokenizer or the model cannot be read.
    """
    cpu, available = torch.device("cpu"), torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if available else cpu
    context = RunContext(config, inputs, listener, device or cpu)
    large = Work(backward=Passes(1, min(LARGE, passes_of(context.rows).tokens)))
    libraries = peak_memory(context.device)
    with listener.stage("measure") as tick:
        loaded = at_hand(config.model.name)
        model = context.model if loaded else outline(config)
        shape, rate = shape_of(model), rate_of(context.device, next(model.parameters()).dtype)
        if loaded and operations(large, shape) < LONGEST * rate:
            speed, note = speed_of(context, shape, rate), TIMED
        else:
            pace = UNTIMED[0] / rate, UNTIMED[1] / rate
            speed = Speed(rate, dict.fromkeys(STEPS, pace), dict.fromkeys(STEPS, 0))
            note = COUNTED
        tick(1, 1, "done")
    return Timing(context, model, shape, speed, libraries, note)


def plan_of(config: Config, inputs: Inputs, timing: Timing) -> Forecast:
    """Return the plan of a run on the timed model and rows; its other settings may differ."""
    context, shape, speed = timing.context, timing.shape, timing.speed
    score_passes = len(passes(trainable(timing.model), config.importance.memory_gib))
    work = workload(config, context.rows, context.general, score_passes)
    sizes, finished = artifact_bytes(config, shape), done(config, inputs)
    stages = tuple(
        Stage(
            name,
            stage_work,
            operations(stage_work, shape),
            _seconds(name, stage_work, timing, len(config.domains)),
            _memory(name, timing, sizes, len(config.domains)),
            name in finished,
        )
        for name, stage_work in work.items()
    )
    notes = [timing.note, LEFT_OUT]
    if speed.share < BUSY:
        notes.append(
            f"This machine is busy: the measurement had {100 * speed.share:.0f} % of a core. The "
            "shorter times are those without other work, the longer ones as busy as now."
        )
    if any(stage_work.at_most for stage_work in work.values()):
        notes.append(AT_MOST)
    if config.evaluation.general_tasks:
        notes.append("Left out: evaluation.general_tasks.")
    return Forecast(
        str(context.device),
        shape,
        speed,
        models_of(config),
        _counts([*context.rows, *context.general]),
        stages,
        sizes,
        timing.libraries,
        tuple(notes),
    )


def _seconds(name: str, work: Work, timing: Timing, domains: int) -> Range:
    """Return a stage's seconds: the low end without other work, the high end as busy as now."""
    if name == "localize":
        selections = 2 * 2 * domains * timing.shape.trainable
        return selections * SELECTING[0], selections * SELECTING[1]
    count, (low, high) = operations(work, timing.shape), timing.speed.seconds[name]
    return count * low * timing.speed.share, count * high


def _memory(name: str, timing: Timing, sizes: dict[str, int], domains: int) -> int:
    """Return a stage's peak in bytes without the libraries: as timed, and what timing leaves out.

    That is the optimiser's state and a masked copy of the gradients, which together are as large as
    a checkpoint; the masters of weights in 16 bits; and the scores of all sides.
    """
    shape = timing.shape
    masters = shape.master_bytes if shape.master_bytes > shape.trainable_bytes else 0
    timed = timing.speed.peaks.get(name, 0) - timing.libraries
    untimed = {
        "vanilla": sizes["vanilla.checkpoint"] + masters,
        "score": 0 if timing.note == TIMED else sizes["scores"] // (2 * domains),
        "localize": sizes["scores"],
        "unlearn": sizes["unlearned.checkpoint"] + masters,
    }
    return max(shape.bytes, timed) + untimed.get(name, 0)


def done(config: Config, inputs: Inputs) -> set[str]:
    """Return the stages whose output the run directory has, from the same settings and data."""
    folder = Path(config.output)
    settings = run_settings(folder)
    source = settings.pop("made_with", None) or {}
    identity = model_identity(config.model.name, config.adapter)
    wanted = inputs.digests, identity
    same = settings == config.model_dump(mode="json", exclude={"made_with"})
    if not same or (source.get("data"), source.get("model")) != wanted:
        return set()
    sides = [f"{name}.{side}" for name in config.domains for side in ("unlearn", "retain")]
    files = {
        "vanilla": [folder / "vanilla"],
        "score": [folder / "scores" / f"{side}.safetensors" for side in sides],
        "unlearn": [folder / "unlearned"],
    }
    stages = {name for name, paths in files.items() if None not in map(artifacts.inputs_of, paths)}
    if has_mask(folder, config.localization.freeze == "by_side", lambda _: None):
        stages.add("localize")
    return stages | ({"evaluate", "generate"} if (folder / "results.json").is_file() else set())


def _counts(rows: list[Encoded]) -> dict[str, tuple[int, int, int]]:
    parts: dict[str, list[Encoded]] = {}
    for row in rows:
        parts.setdefault(f"{row.domain}.{row.side}.{row.part}", []).append(row)
    passes = {name: passes_of(part) for name, part in parts.items()}
    return {name: (len(parts[name]), p.tokens, p.answers) for name, p in passes.items()}
