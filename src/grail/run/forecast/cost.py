"""A model in numbers, and what follows from them of its files: bytes written, and bytes hashed."""

import math
from dataclasses import dataclass

from grail.artifacts import STATISTICS
from grail.config.run import Config
from grail.localization.select import layers as groups
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
        layers: ``localization.layer`` -> the trainable entries of the largest such layer.
        trainable: Their entries.
        trainable_bytes: What these take.
    """

    parameters: int
    bytes: int
    tensors: tuple[tuple[int, ...], ...]
    layers: dict[str, int]
    trainable: int
    trainable_bytes: int

    @property
    def master_bytes(self) -> int:
        """What training moves: the trainable tensors, or float32 copies of those in 16 bits."""
        return max(self.trainable_bytes, FLOAT * self.trainable)


def shape_of(model: Policy) -> Shape:
    """Return the numbers of a model."""
    parameters, free = list(model.parameters()), trainable(model)
    trained = list(free.values())
    sizes = {
        layer: [sum(free[name].numel() for name in names) for names in groups(free, layer).values()]
        for layer in ("auto", "block", "tensor", "model")
    }
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(p.nbytes for p in parameters),
        tensors=tuple(tuple(p.shape) for p in trained),
        layers={layer: max(entries, default=0) for layer, entries in sizes.items()},
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


def hashed_bytes(config: Config, shape: Shape) -> dict[str, int]:
    """Return the bytes that each stage hashes, without masks and files of text, which are small.

    Whoever writes weights hashes them for their stamp and for the manifest, and whoever reads them
    does once more; the evaluation reads two models and checks both. Scores are sealed, recorded,
    and checked before the sets are chosen.
    """
    files, weights = file_bytes(config, shape), shape.trainable_bytes
    resets = config.unlearning.reset is not None
    return {
        "vanilla": 2 * weights,
        "score": weights + 2 * files["score"],
        "localize": files["score"],
        "reset": files["score"] * resets,
        "unlearn": 3 * weights,
        "evaluate": 4 * weights,
    }
