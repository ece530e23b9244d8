"""A model in numbers, and what follows from them: operations of passes, bytes of files."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from grail.artifacts import STATISTICS
from grail.config.run import Config
from grail.forecast.work import Passes, Work
from grail.model.forward import Policy, trainable

FLOAT = 4
"""Bytes of a float32."""

Range = tuple[float, float]
"""From and to."""


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
        head: Entries of the head, which only answer tokens are multiplied with.
    """

    parameters: int
    bytes: int
    tensors: tuple[tuple[int, ...], ...]
    trainable_bytes: int
    products: int
    products_trained: int
    head: int

    @property
    def trainable(self) -> int:
        """Entries that training may change."""
        return sum(map(math.prod, self.tensors))

    @property
    def master_bytes(self) -> int:
        """What training moves: the trainable tensors, or float32 copies of those in 16 bits."""
        return max(self.trainable_bytes, FLOAT * self.trainable)


def shape_of(model: Policy) -> Shape:
    """Return the numbers of a model, which may be on the device ``meta``."""
    head: nn.Parameter = model.get_output_embeddings().weight  # type: ignore[operator]
    parameters, trained = list(model.parameters()), list(trainable(model).values())
    outside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | {id(head)}
    blocks = [p for p in parameters if p.dim() == 2 and id(p) not in outside]
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(p.nbytes for p in parameters),
        tensors=tuple(tuple(p.shape) for p in trained),
        trainable_bytes=sum(p.nbytes for p in trained),
        products=sum(p.numel() for p in blocks),
        products_trained=sum(p.numel() for p in blocks if p.requires_grad),
        head=head.numel(),
    )


def operations(work: Work, shape: Shape) -> float:
    """Return the floating-point operations of the matrix products of ``work``.

    Two for each entry and token forward, as many for the gradient of each input, and as many for
    the gradient of each trained weight. Attention's own products are left out: a few percent.
    """

    def once(passes: Passes) -> float:
        return 2.0 * (shape.products * passes.tokens + shape.head * passes.answers)

    trained = 2.0 * shape.products_trained * work.backward.tokens
    return once(work.forward) + once(work.generated) + 2 * once(work.backward) + trained


def optimizer_bytes(name: str, shape: Shape) -> int:
    """Return the size of an optimiser's state: moments, and each tensor's count of steps."""
    if name == "sgd":
        return shape.master_bytes
    steps = FLOAT * len(shape.tensors)
    if name == "adamw":
        return 2 * shape.master_bytes + steps
    entry = shape.master_bytes // max(1, shape.trainable)
    # Adafactor's second moment: row and column means of a matrix, all entries of a vector
    return entry * sum(math.prod(t[:-2]) * sum(t[-2:]) for t in shape.tensors) + steps


def artifact_bytes(config: Config, shape: Shape) -> dict[str, int]:
    """Return the size of each file of a run in bytes, without headers, tokenizer and text.

    Checkpoints are dropped when their training ends; while one is replaced, there are two.
    """
    settings, weights, masters = config.unlearning, shape.trainable_bytes, shape.master_bytes
    masks = 3 if config.localization.freeze == "by_side" else 1
    more = (settings.rectify + (settings.stop is not None)) * masters  # a direction, the best
    state = optimizer_bytes(settings.optimizer, shape) + more
    return {
        "vanilla": weights,
        "vanilla.checkpoint": (masters + optimizer_bytes("adamw", shape)) * config.teaches,
        "scores": 2 * len(config.domains) * len(STATISTICS) * FLOAT * shape.trainable,
        "mask": masks * sum(-(-math.prod(tensor) // 8) for tensor in shape.tensors),
        "unlearned": weights,
        "unlearned.checkpoint": masters + state,
    }
