"""A model in numbers, and the bytes of the files that follow from them."""

import math
from dataclasses import dataclass

from grail.artifacts import STATISTICS
from grail.config.run import Config
from grail.model.forward import Policy, trainable
from grail.training.eight_bits import NAME_8BIT, SMALLEST

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Shape:
    """A model in numbers.

    Attributes:
        parameters: All entries, shared ones once.
        bytes: What they take in memory.
        tensors: The shapes of the trainable tensors.
        trainable: Their entries.
        trainable_bytes: What these take.
    """

    parameters: int
    bytes: int
    tensors: tuple[tuple[int, ...], ...]
    trainable: int
    trainable_bytes: int

    @property
    def master_bytes(self) -> int:
        """What training moves: the trainable tensors, or float32 copies of those in 16 bits."""
        return max(self.trainable_bytes, FLOAT * self.trainable)


def shape_of(model: Policy) -> Shape:
    """Return the numbers of a model."""
    parameters, trained = list(model.parameters()), list(trainable(model).values())
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(p.nbytes for p in parameters),
        tensors=tuple(tuple(p.shape) for p in trained),
        trainable=sum(p.numel() for p in trained),
        trainable_bytes=sum(p.nbytes for p in trained),
    )


def checkpoint_bytes(config: Config, shape: Shape) -> dict[str, int]:
    """Return the bytes of each training's checkpoint; while one is replaced, there are two."""
    settings = config.unlearning
    more = settings.rectify + (settings.stop is not None)  # a direction, and the best weights
    return {
        "vanilla": _state_bytes("adamw", shape) * config.teaches,
        "unlearn": _state_bytes(settings.optimizer, shape) + more * shape.master_bytes,
    }


def _state_bytes(optimizer: str, shape: Shape) -> int:
    """Return the size of weights, moments, and each tensor's count of steps."""
    masters, steps = shape.master_bytes, FLOAT * len(shape.tensors)
    if optimizer == "sgd":
        return 2 * masters
    if optimizer == "adamw":
        return 3 * masters + steps
    if optimizer == NAME_8BIT:  # two bytes of an entry, and two scales of 256
        counts = [math.prod(tensor) for tensor in shape.tensors]
        few = [2 * n + 2 * FLOAT * -(-n // 256) if n >= SMALLEST else 2 * FLOAT * n for n in counts]
        return masters + sum(few) + steps
    entry = masters // max(1, shape.trainable)
    # Adafactor's second moment: row and column means of a matrix, all entries of a vector
    means = sum(math.prod(tensor[:-2]) * sum(tensor[-2:]) for tensor in shape.tensors)
    return masters + entry * means + steps


def set_bytes(config: Config, shape: Shape) -> int:
    """Return what the sets take while they are chosen, a byte for each entry.

    Two top sets of each side, the two overlaps, what is kept of them, and the mask. Scores are read
    tensor by tensor.
    """
    return (4 * len(config.domains) + 5) * shape.trainable


def proof_bytes(config: Config, shape: Shape) -> int:
    """Return what Stage 3 keeps for the proof of freezing: the weights at its start, and marks."""
    by_side = config.localization.freeze == "by_side"
    return shape.trainable_bytes + shape.trainable * (3 if by_side else 1)


def file_bytes(config: Config, shape: Shape) -> dict[str, int]:
    """Return the bytes of each stage's files, without headers, tokenizer and text."""
    marks = sum(-(-math.prod(tensor) // 8) for tensor in shape.tensors)
    return {
        "vanilla": shape.trainable_bytes,
        "score": 2 * len(config.domains) * len(STATISTICS) * FLOAT * shape.trainable,
        "localize": marks * (3 if config.localization.freeze == "by_side" else 1),
        "reset": marks * (config.unlearning.reset is not None),
        "unlearn": shape.trainable_bytes,
    }
