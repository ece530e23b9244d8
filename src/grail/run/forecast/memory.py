"""Where a model of any shape fits: the bytes that each stage holds on each device."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grail.artifacts import STATISTICS
from grail.config.run import Config
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.importance.hooks import CHUNK_BYTES
from grail.importance.sums import passes
from grail.model.forward import Policy, trainable
from grail.run.forecast.cost import FLOAT, Shape, shape_of
from grail.run.forecast.holds import Held, set_bytes, trainings
from grail.run.forecast.shapes import Pass, block_bytes, frozen_linear_entries, shaped, traced
from grail.run.together import refuse_in_parts

LIBRARIES = 0.5 * 2**30
"""What a process takes before it has a model: Python, torch, transformers."""

_BITS = {None: None, "nf4": 4.13, "int8": 8.02}
"""Bits of an entry with its share of the scales: 8 bits for 64 entries, and 32 for 64 times 256."""

Trainings = Sequence[tuple[Pass, Held]]
"""A pass of each training, and what the training holds."""


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
        host: Bytes of the files of all scores, which are read while sets are chosen.
        sets: Bytes of these sets, in the memory of the machine.
        start: What Stage 3 keeps there, too: the weights at its start, which the proof of freezing
            reads, and of the mask, which each process reads whole, what its device has not.
    """

    quantise: str | None
    checkpointing: bool
    shards: int
    weights: int
    score: int
    train: int
    host: int
    sets: int
    start: int

    @property
    def peak(self) -> float:
        """The most of a device's memory, libraries included."""
        return LIBRARIES + max(self.score, self.train)

    @property
    def unified(self) -> float:
        """The same where device and machine share one memory, as on a CPU."""
        return LIBRARIES + max(self.score, self.train + self.start, self.weights + self.sets)

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
        refused: Why the configuration cannot run in parts, where several devices were asked for.
    """

    shape: Shape
    ways: tuple[Way, ...]
    flops: dict[str, float]
    refused: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        peaks = [way.peak for way in self.ways], [way.unified for way in self.ways]
        return asdict(self) | dict(zip(("peaks", "unified"), peaks, strict=True))


def plan_of_shape(
    config: Config, rows: Sequence[Encoded], name: str, devices: int, frozen: float = 0.0
) -> ShapePlan:
    """Return what a run takes on a model that is not on this machine.

    The run's own model only gives the tokenizer. ``rows`` are its rows in ids, ``name`` is that of
    a shape (``shaped``; InputError if there is none), and ``devices`` train together: a step's rows
    are divided among them. The mask will freeze a share ``frozen`` of the trainable entries (0-1).
    """
    model = shaped(name, config.model)
    shape = shape_of(model)
    train = [row for row in rows if row.part == "train" and row.side in ("unlearn", "retain")]
    longest = max(len(row.ids) for row in train)
    answer = max(len(row.ids) - row.start for row in train)
    trained = [
        (traced(model, math.ceil(training.rows / devices), longest, answer), training)
        for training in trainings(config, shape, frozen).values()
    ]
    draws = config.importance.trials if config.importance.labels == "random" else 1
    side = max(Counter((row.domain, row.side) for row in train).values())  # sides are not mixed
    fits = max(1, min(config.importance.batch_tokens // longest, side * draws))
    score = traced(model, fits, longest, answer)
    chunk = chunk_bytes(shape, math.ceil(fits / draws))
    few = [config.model.quantise]
    if few == [None] and config.model.lora is not None:
        few.append("nf4")
    hows = [(k, a, 1) for k in few for a in sorted({config.model.gradient_checkpointing, True})]
    refused = _refused_in_parts(config) if devices > 1 else ""
    if devices > 1 and not refused:
        hows.append((None, False, devices))
    ways = [_way(model, config, (trained, score, chunk), how) for how in hows]
    tokens = sum(len(row.ids) for row in train)
    scored = score.flops / (fits * longest) * tokens * draws
    unlearned = score.flops / (fits * longest) * tokens * config.unlearning.epochs
    return ShapePlan(shape, tuple(ways), {"score": scored, "unlearn": unlearned}, refused)


def _refused_in_parts(config: Config) -> str:
    """Return why a configuration cannot run in parts, whatever its base is stored in."""
    plain = {"quantise": None, "gradient_checkpointing": False}
    model = config.model.model_copy(update=plain)
    try:
        refuse_in_parts(config.model_copy(update={"model": model}))
    except InputError as error:
        return str(error)
    return ""


def chunk_bytes(shape: Shape, samples: int) -> int:
    """Return what scoring takes of a batch's samples to add the gradients of the largest tensor.

    That is as many gradients as fit in a chunk, one at least, with their absolutes and squares.
    """
    largest = FLOAT * max(map(math.prod, shape.tensors))
    return 3 * largest * max(1, min(samples, CHUNK_BYTES // largest))


def _way(
    model: Policy,
    config: Config,
    traces: tuple[Trainings, Pass, int],
    how: tuple[str | None, bool, int],
) -> Way:
    kind, checkpointing, shards = how
    trained, score, chunk = traces
    shape, parameters = shape_of(model), trainable(model)
    weights = weight_bytes(model, kind)
    training, start = [], 0
    for step, held in trained:  # activations are gone when the optimiser steps
        most = step.most(shape.trainable_bytes // shards, checkpointing) + held.earlier // shards
        most = max(most, held.gradients // shards)
        training.append((weights + held.kept + held.reference) // shards + most)
        start = max(start, held.start // shards + held.marks - held.marks // shards)
    sums = sum(p.numel() for p in passes(parameters, config.importance.memory_gib)[0].values())
    largest = max(p.numel() for p in parameters.values()) * FLOAT
    gathered = 0
    if shards > 1:  # embeddings and head, two blocks, and the gradients of one
        inside, count = block_bytes(model)
        gathered = shape.bytes - inside + 3 * inside // count
    adding = 5 * largest if shards > 1 else 0  # three whole sums, and two copies on their way
    means = len(STATISTICS) * FLOAT
    scoring = score.kept + (sums * means) // shards + chunk
    return Way(
        *(kind, checkpointing, shards, weights // shards),
        score=weights // shards + gathered + adding + scoring,
        train=gathered + max(training),
        host=2 * len(config.domains) * means * shape.trainable,
        sets=set_bytes(config, shape),
        start=start,
    )


def weight_bytes(model: Policy, quantise: str | None) -> int:
    """Return the bytes of a model's weights, the frozen Linear ones in few bits if so wished."""
    shape, bits = shape_of(model), _BITS[quantise]
    if bits is None:
        return shape.bytes
    entries = frozen_linear_entries(model)
    wide = (shape.bytes - shape.trainable_bytes) / (shape.parameters - shape.trainable)
    return shape.bytes - int(entries * (wide - bits / 8))
