"""From what is to be computed to operations, seconds and bytes; pure arithmetic, nothing measured.

Knows numbers of a model and of a machine; knows no file and no module of a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from grail.config.run import Config
from grail.forecast.work import NOTHING, Passes, Work
from grail.unlearning.objectives import make_objective

FLOAT = 4
"""Bytes of a float32."""
STATISTICS = 3
"""Scores of an entry: the means of |g|, g and g squared."""
SAMPLES_BYTES = 256 * 2**20
"""The most that per-sample gradients of one parameter take at once."""
SELECTING = 40e-9
"""Seconds an entry and selection: measured on one core with 20 million entries."""
LOGITS = 3
"""Copies of a batch's logits in float32: themselves, their softmax, its gradient."""

Range = tuple[float, float]
MEASURED: Range = (0.8, 1.6)
"""Of a measured speed: what other batches and a busier machine make of it."""
ASSUMED: Range = (1.5, 6.0)
"""Of the time that matrix products alone would take, where no pass of the model was measured."""


@dataclass(frozen=True)
class Shape:
    """A model in numbers.

    Attributes:
        parameters: All entries, shared ones once.
        bytes: What they take in memory.
        tensors: The shapes of the trainable tensors.
        trainable_bytes: What these take.
        products: Entries of the weights that every token is multiplied with: those of the blocks.
        products_trained: How many of them are trainable.
        head: Entries of the head, which reads answer tokens only.
        vocabulary: Tokens that it tells apart.
        cache: Bytes of keys and values that a generated or read token leaves behind.
    """

    parameters: int
    bytes: int
    tensors: tuple[tuple[int, ...], ...]
    trainable_bytes: int
    products: int
    products_trained: int
    head: int
    vocabulary: int
    cache: int

    @property
    def trainable(self) -> int:
        """Entries that training may change."""
        return sum(map(math.prod, self.tensors))


@dataclass(frozen=True)
class Speed:
    """What a machine does with a model.

    Attributes:
        rate: Operations a second in plain matrix products.
        forward: Seconds a token without gradients; None where no pass was measured.
        backward: Seconds a token forward and backward.
        decoding: Seconds a decoding step.
        saved: Bytes a token that a forward pass keeps for the backward pass.
        share: How much of a core (at most 1) the process had meanwhile: below 1, others were at
            work, and with the machine to itself it would be as much faster.
    """

    rate: float
    forward: float | None = None
    backward: float | None = None
    decoding: float | None = None
    saved: float = 0.0
    share: float = 1.0


def operations(work: Work, shape: Shape) -> float:
    """Return the floating-point operations of a stage's matrix products.

    Two for each entry and token forward, as many for the gradient of each input; the gradients of
    weights only where they are trained. Attention's own products and the optimiser are left out:
    at the length of answers they are a few percent.
    """

    def once(passes: Passes) -> float:
        return 2.0 * (shape.products * passes.tokens + shape.head * passes.answers)

    trained = 2.0 * shape.products_trained * work.backward.tokens
    return once(work.forward) + once(work.generated) + 2 * once(work.backward) + trained


def seconds(work: Work, shape: Shape, speed: Speed) -> Range:
    """Return the shortest and the longest that a stage's passes may take, by a rough margin.

    The shortest is that on a machine without other work, the longest on one as busy as measured.
    """
    if speed.forward is None or speed.backward is None:
        plain = operations(work, shape) / speed.rate
        return plain * ASSUMED[0], plain * ASSUMED[1]
    own = work.forward.tokens * speed.forward + work.backward.tokens * speed.backward
    own += work.generated.batches * (speed.decoding or 0.0)
    return own * MEASURED[0] * speed.share, own * MEASURED[1]


def selecting(shape: Shape, sides: int) -> Range:
    """Return the same for Stage 2, which ranks every entry of every side twice."""
    own = 2 * sides * shape.trainable * SELECTING
    return own * MEASURED[0], own * ASSUMED[1]


def optimizer_bytes(name: str, shape: Shape) -> int:
    """Return the size of an optimiser's state: moments, and the count of steps of each tensor."""
    if name == "sgd":
        return shape.trainable_bytes
    steps = FLOAT * len(shape.tensors)
    if name == "adamw":
        return 2 * shape.trainable_bytes + steps
    size = shape.trainable_bytes // max(1, shape.trainable)
    return size * sum(map(_factored, shape.tensors)) + steps


def _factored(shape: Sequence[int]) -> int:
    """Return the entries of Adafactor's second moment: row and column means of a matrix."""
    if len(shape) < 2:
        return math.prod(shape)
    *others, rows, columns = shape
    return math.prod(others) * (rows + columns)


def artifact_bytes(config: Config, shape: Shape, sides: int) -> dict[str, int]:
    """Return the size of what a run writes, without headers, tokenizer and text.

    Checkpoints are dropped when their training ends; while one is replaced, there are two.
    """
    entries, weights = shape.trainable, shape.trainable_bytes
    bits = sum(-(-math.prod(own) // 8) for own in shape.tensors)
    masks = 3 if config.localization.freeze == "by_side" else 1
    given = config.vanilla.skip or config.vanilla.adapter is not None
    settings = config.unlearning
    state = weights + optimizer_bytes(settings.optimizer, shape) + settings.rectify * weights
    return {
        "vanilla": weights,
        "vanilla.checkpoint": 0 if given else weights + optimizer_bytes("adamw", shape),
        "scores": STATISTICS * FLOAT * entries * sides,
        "mask": bits * masks,
        "unlearned": weights,
        "unlearned.checkpoint": state,
    }


def memory(stage: str, work: Work, shape: Shape, speed: Speed, config: Config) -> float:
    """Return about what a stage has in memory at its peak, in bytes, without the libraries' own."""
    sides, entries = 2 * len(config.domains), shape.trainable
    passes = work.backward if work.backward != NOTHING else work.forward
    logits = passes.most_answers * shape.vocabulary * FLOAT * LOGITS
    kept = work.backward.largest * speed.saved
    own = {
        "vanilla": shape.trainable_bytes + optimizer_bytes("adamw", shape),
        "score": STATISTICS * FLOAT * entries + _samples(work, shape),
        "localize": sides * entries * (STATISTICS * FLOAT + 2) + 4 * entries,
        "unlearn": _unlearning(config, shape),
        "evaluate": 0,
        "generate": work.forward.largest * shape.cache,
    }[stage]
    return shape.bytes + own + kept + logits


def _samples(work: Work, shape: Shape) -> int:
    largest = max(map(math.prod, shape.tensors), default=0)
    return min(SAMPLES_BYTES, FLOAT * largest * max(1, work.backward.largest))


def _unlearning(config: Config, shape: Shape) -> int:
    """Gradients, moments, the frozen entries as they were, the reference, and the mask."""
    objective = make_objective(config.unlearning)
    compared = any(objective.compares(side) for side in objective.sides)
    copies = 2 + compared + config.unlearning.rectify
    moments = optimizer_bytes(config.unlearning.optimizer, shape)
    return copies * shape.trainable_bytes + moments + shape.trainable
