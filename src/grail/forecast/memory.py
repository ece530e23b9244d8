"""Where a model of any shape fits: the bytes that each stage holds on each device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grail.artifacts import STATISTICS
from grail.config.run import Config
from grail.data.encode import Encoded
from grail.forecast.cost import FLOAT, Shape, shape_of
from grail.forecast.shapes import Pass, linear_entries, shaped, traced
from grail.importance.hooks import CHUNK_BYTES
from grail.importance.sums import passes
from grail.model.forward import Policy, trainable

LIBRARIES = 0.5 * 2**30
"""What a process takes before it has a model: Python, torch, transformers."""

_BITS = {None: None, "nf4": 4.13, "int8": 8.02}
"""Bits of an entry with its share of the scales: 8 bits for 64 entries, and 32 for 64 times 256."""


@dataclass(frozen=True)
class Way:
    """One way to run a configuration: what it changes, and the bytes on each device.

    Attributes:
        quantise: ``model.quantise``.
        checkpointing: ``model.gradient_checkpointing``.
        shards: Devices that hold the model in parts (FSDP2); 1: each holds all of it.
        weights: Bytes of the weights.
        score: Bytes while scoring, weights included.
        train: The same while training, optimiser included.
        host: Bytes of all scores at once, in the memory of the machine, when sets are chosen.
    """

    quantise: str | None
    checkpointing: bool
    shards: int
    weights: int
    score: int
    train: int
    host: int

    @property
    def peak(self) -> float:
        """The most of a device's memory, libraries included."""
        return LIBRARIES + max(self.score, self.train)

    @property
    def unified(self) -> float:
        """The same where device and machine share one memory, as on a CPU: the scores are in it."""
        return max(self.peak, LIBRARIES + self.weights + self.host)

    @property
    def changes(self) -> list[str]:
        """The settings, in words that can be copied."""
        few = [f"--set model.quantise={self.quantise}"] if self.quantise else []
        again = ["--set model.gradient_checkpointing=true"] * self.checkpointing
        return few + again + [f"FSDP2 on {self.shards} devices"] * (self.shards > 1)


@dataclass(frozen=True)
class ShapePlan:
    """The ways to run a configuration on a model of some shape, cheapest first.

    Attributes:
        shape: The model in numbers.
        ways: What can be changed, and what it takes.
        flops: Floating point operations of scoring and of Stage 3.
    """

    shape: Shape
    ways: tuple[Way, ...]
    flops: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        peaks = [way.peak for way in self.ways], [way.unified for way in self.ways]
        return asdict(self) | dict(zip(("peaks", "unified"), peaks, strict=True))


def plan_of_shape(config: Config, rows: Sequence[Encoded], name: str, devices: int) -> ShapePlan:
    """Return what a run takes on a model that is not on this machine.

    Args:
        config: The run; its own model only gives the tokenizer.
        rows: Its rows, in ids.
        name: See ``shaped``.
        devices: Devices that train together; a step's rows are divided among them.

    Raises:
        InputError: if there is no such shape.
    """
    model = shaped(name, config.model)
    shape, settings = shape_of(model), config.unlearning
    train = [row for row in rows if row.part == "train" and row.side in ("unlearn", "retain")]
    longest = max(len(row.ids) for row in train)
    answer = max(len(row.ids) - row.start for row in train)
    together = math.ceil(settings.batch_size * max(1.0, settings.retain_ratio))
    steps = math.ceil(together / settings.accumulation / devices)
    step = traced(model, steps, longest, answer)
    draws = config.importance.trials if config.importance.labels == "random" else 1
    fits = max(1, min(config.importance.batch_tokens // longest, len(train) * draws))
    score = traced(model, fits, longest, answer)
    few = [config.model.quantise]
    if few == [None] and config.model.lora is not None:
        few.append("nf4")
    ways = [
        _way(model, config, (step, score), (kind, again, shards))
        for shards in dict.fromkeys((1, devices))
        for kind in few
        for again in sorted({config.model.gradient_checkpointing, True})
        if shards == 1 or kind is None  # weights in few bits are not sharded
    ]
    tokens = sum(len(row.ids) for row in train)
    scored = score.flops / (fits * longest) * tokens * draws
    trained = step.flops / (steps * longest) * tokens * settings.epochs
    return ShapePlan(shape, tuple(ways), {"score": scored, "unlearn": trained})


def _way(
    model: Policy, config: Config, traces: tuple[Pass, Pass], how: tuple[str | None, bool, int]
) -> Way:
    kind, checkpointing, shards = how
    step, score = traces
    shape, parameters = shape_of(model), trainable(model)
    weights, bits = shape.bytes, _BITS[kind]
    if bits is not None:
        entries = linear_entries(model, lambda weight: not weight.requires_grad)
        wide = (shape.bytes - shape.trainable_bytes) / (shape.parameters - shape.trainable)
        weights -= int(entries * (wide - bits / 8))
    copies = shape.master_bytes * (shape.master_bytes > shape.trainable_bytes)
    moments = {"sgd": 1, "adamw": 2, "adafactor": 0}[config.unlearning.optimizer]
    # gradients, their masked copies in the masters' precision, and the optimiser's state
    state = shape.trainable_bytes + shape.master_bytes * (1 + moments) + copies
    activations = step.inputs + step.layer if checkpointing else step.kept
    sums = sum(p.numel() for p in passes(parameters, config.importance.memory_gib)[0].values())
    largest = max(p.numel() for p in parameters.values()) * FLOAT
    gathered = 0
    if shards > 1:
        gathered = 2 * max(p.nbytes for p in model.parameters())
    means = len(STATISTICS) * FLOAT
    scoring = score.kept + (sums * 2 * means) // shards + min(CHUNK_BYTES, 8 * largest)
    return Way(
        *(kind, checkpointing, shards, weights // shards),
        score=weights // shards + gathered + scoring,
        train=(weights + state) // shards + gathered + activations,
        host=2 * len(config.domains) * means * shape.trainable,
    )
