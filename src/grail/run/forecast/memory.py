"""Where a model of any shape fits: the bytes that each stage holds on each device."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grail.artifacts import STATISTICS
from grail.config.run import Config
from grail.config.teach import Teach
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.importance.hooks import CHUNK_BYTES
from grail.importance.sums import passes
from grail.model.forward import Policy, trainable
from grail.model.vocabulary import vocabulary_weights
from grail.run.forecast.cost import FLOAT, Shape, set_bytes, shape_of
from grail.run.forecast.shapes import Pass, block_bytes, frozen_linear_entries, shaped, traced
from grail.run.forecast.work import step_rows
from grail.run.inputs import knows_before
from grail.run.together import refuse_in_parts
from grail.training.optimizer import trains_vector
from grail.unlearning.objectives import EXACT, make_objective

LIBRARIES = 0.5 * 2**30
"""What a process takes before it has a model: Python, torch, transformers."""

_BITS = {None: None, "nf4": 4.13, "int8": 8.02}
"""Bits of an entry with its share of the scales: 8 bits for 64 entries, and 32 for 64 times 256."""

_MOMENTS = {"sgd": 1, "adamw": 2, "adafactor": 0, "adamw8bit": 0.51}
"""Numbers that an optimiser keeps of each entry; Adafactor keeps one of each row and column, and 8
bits are a quarter of one, with scales."""

Trainings = Sequence[tuple[Pass, int, int]]
"""A pass of each training, what the training holds beside the weights, and its gradients."""


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
        start: Bytes of the weights before Stage 3, there too: the proof of freezing reads them.
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
    shape, settings = shape_of(model), config.unlearning
    train = [row for row in rows if row.part == "train" and row.side in ("unlearn", "retain")]
    longest = max(len(row.ids) for row in train)
    answer = max(len(row.ids) - row.start for row in train)
    trainings = [
        (traced(model, math.ceil(count / devices), longest, answer), held, gradients)
        for count, held, gradients in _trainings(config, shape, frozen)
    ]
    draws = config.importance.trials if config.importance.labels == "random" else 1
    fits = max(1, min(config.importance.batch_tokens // longest, len(train) * draws))
    score = traced(model, fits, longest, answer)
    few = [config.model.quantise]
    if few == [None] and config.model.lora is not None:
        few.append("nf4")
    hows = [(k, a, 1) for k in few for a in sorted({config.model.gradient_checkpointing, True})]
    refused = _refused_in_parts(config) if devices > 1 else ""
    if devices > 1 and not refused:
        hows.append((None, False, devices))
    ways = [_way(model, config, (trainings, score), how) for how in hows]
    tokens = sum(len(row.ids) for row in train)
    scored = score.flops / (fits * longest) * tokens * draws
    trained = score.flops / (fits * longest) * tokens * settings.epochs
    return ShapePlan(shape, tuple(ways), {"score": scored, "unlearn": trained}, refused)


def _refused_in_parts(config: Config) -> str:
    """Return why a configuration cannot run in parts, whatever its base is stored in."""
    plain = {"quantise": None, "gradient_checkpointing": False}
    model = config.model.model_copy(update=plain)
    try:
        refuse_in_parts(config.model_copy(update={"model": model}))
    except InputError as error:
        return str(error)
    return ""


def _way(
    model: Policy, config: Config, traces: tuple[Trainings, Pass], how: tuple[str | None, bool, int]
) -> Way:
    kind, checkpointing, shards = how
    trainings, score = traces
    shape, parameters = shape_of(model), trainable(model)
    weights = weight_bytes(model, kind)
    training = []
    for step, held, gradients in trainings:  # activations are gone when the optimiser steps
        kept = step.activations(checkpointing)
        most = max(shape.trainable_bytes // shards + kept, gradients // shards)
        training.append((weights + held) // shards + most)
    sums = sum(p.numel() for p in passes(parameters, config.importance.memory_gib)[0].values())
    largest = max(p.numel() for p in parameters.values()) * FLOAT
    gathered = 0
    if shards > 1:  # embeddings and head, two blocks, and the gradients of one
        inside, count = block_bytes(model)
        gathered = shape.bytes - inside + 3 * inside // count
    adding = 5 * largest if shards > 1 else 0  # three whole sums, and two copies on their way
    means = len(STATISTICS) * FLOAT
    scoring = score.kept + (sums * means) // shards + min(CHUNK_BYTES, 8 * largest)
    return Way(
        *(kind, checkpointing, shards, weights // shards),
        score=weights // shards + gathered + adding + scoring,
        train=gathered + max(training),
        host=2 * len(config.domains) * means * shape.trainable,
        sets=set_bytes(config, shape),
        start=shape.trainable_bytes // shards,
    )


def weight_bytes(model: Policy, quantise: str | None) -> int:
    """Return the bytes of a model's weights, the frozen ones in few bits if so wished.

    Those are Linear weights; embedding and LM head are in 8 bits, each row with a scale.
    """
    shape, bits = shape_of(model), _BITS[quantise]
    if bits is None:
        return shape.bytes
    entries = frozen_linear_entries(model)
    wide = (shape.bytes - shape.trainable_bytes) / (shape.parameters - shape.trainable)
    saved = entries * (wide - bits / 8)
    saved += sum(w.numel() * (wide - 1) - len(w) * wide for w in vocabulary_weights(model))
    return shape.bytes - int(saved)


def _trainings(config: Config, shape: Shape, frozen: float) -> list[tuple[int, int, int]]:
    """Return of each training the rows of a pass, and the bytes that it holds (``Trainings``)."""
    settings, teach = config.unlearning, config.teach or Teach()
    taught = teach.batch_size, *state_bytes(shape, "adamw", None)
    first = [taught] * (config.teaches or settings.objective == EXACT)
    if settings.objective == EXACT:
        return first
    rows, by_side = step_rows(settings), config.localization.freeze == "by_side"
    unlearn, others = rows.get("unlearn", 0), sum(rows.values()) - rows.get("unlearn", 0)
    together = max(unlearn, others) if by_side or settings.rectify else unlearn + others
    objective = make_objective(settings)
    models = any(objective.compares(side) for side in objective.sides)  # the reference
    models += settings.objective == "distill" and knows_before(config)  # and the teacher
    held, gradients = state_bytes(shape, settings.optimizer, frozen)
    held += models * shape.trainable_bytes
    held += shape.trainable * (3 if by_side else 1)  # a byte for each mark of the mask
    held += settings.rectify * shape.master_bytes  # the direction
    return [*first, (math.ceil(together / settings.accumulation), held, gradients)]


def state_bytes(shape: Shape, optimizer: str, frozen: float | None) -> tuple[int, int]:
    """Return what a training holds from step to step, and its gradients in a step, in bytes.

    The mask freezes a share ``frozen`` of every tensor (0-1); None: there is no mask.
    """
    vectors = frozen is not None and trains_vector(optimizer, frozen)
    entries = shape.master_bytes * (1 - (frozen or 0.0) if vectors else 1)
    copies = vectors or shape.master_bytes > shape.trainable_bytes
    masked = frozen is not None and not vectors  # a copy with zeros in it
    return int(entries * (_MOMENTS[optimizer] + copies)), int(entries * (1 + masked))
