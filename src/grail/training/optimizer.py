"""How a training loop steps: optimisers and learning rate schedules."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grail.model.sharded import part
from grail.training.eight_bits import NAME_8BIT, adamw8bit

Frozen = Mapping[str, Tensor]
"""Parameter name -> its frozen entries, of parameters whose free entries alone are trained."""


@dataclass(frozen=True)
class LoopSettings:
    """How the loop steps; the fields are those of the configuration's sections.

    ``epochs`` counts those of all cycles; each cycle starts its schedule and optimiser anew.
    """

    learning_rate: float
    epochs: int
    seed: int
    schedule: str = "constant"
    warmup: float = 0.0
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0
    accumulation: int = 1
    checkpoint_steps: int = 20
    cycles: int = 1
    rectify: bool = False


OPTIMIZERS = {
    "adamw": lambda p, s: torch.optim.AdamW(p, lr=s.learning_rate, weight_decay=0.0),
    "sgd": lambda p, s: torch.optim.SGD(p, lr=s.learning_rate, momentum=s.momentum),
    "adafactor": lambda p, s: torch.optim.Adafactor(p, lr=s.learning_rate, weight_decay=0.0),
    NAME_8BIT: lambda p, s: adamw8bit(p, s.learning_rate),
}

ENTRYWISE = ("adamw", "sgd")
"""The optimisers that move an entry by its own gradients alone, wherever it stands in its tensor.

Adafactor is none: its state is the means of rows and columns. Nor is adamw8bit: neighbouring
entries share a scale."""

WORTH = 0.5
"""Frozen share of a tensor from which on its free entries are trained as a vector of their own,
which costs a copy of them and saves the frozen entries' gradients and moments."""


def trains_vector(optimizer: str, frozen: float) -> bool:
    """Tell whether of a tensor with this frozen share (0-1) the free entries alone are trained.

    adamw8bit is never given a frozen entry: it would move it.
    """
    if optimizer == NAME_8BIT:
        return frozen > 0
    return optimizer in ENTRYWISE and frozen >= WORTH


def masters_of(
    parameters: Mapping[str, nn.Parameter], frozen: Frozen | None = None
) -> dict[str, nn.Parameter]:
    """Return what an optimiser moves, by name: a float32 copy of each parameter in 16 bits.

    bfloat16 keeps 8 bits of a number: a step of less than 1/512 of a weight would round away, and
    at the rates of full weights nearly all steps are smaller. In a copy they add up. Parameters of
    32 bits or more are their own masters. The master of a parameter in ``frozen`` is a vector of
    its free entries, so that gradients, moments and checkpoints hold no others.
    """
    masters, frozen = dict[str, nn.Parameter](), frozen or {}
    for name, p in parameters.items():
        kind = p.dtype if p.dtype.itemsize >= 4 else torch.float32
        if name in frozen:
            masters[name] = nn.Parameter(p.detach()[~frozen[name]].to(kind))
        else:
            masters[name] = p if p.dtype == kind else nn.Parameter(p.detach().to(kind))
    return masters


def take_gradients(
    parameters: Mapping[str, nn.Parameter],
    masters: Mapping[str, nn.Parameter],
    frozen: Frozen | None = None,
) -> dict[str, Tensor]:
    """Return the gradients as the masters are, zeros where there is none, and clear them.

    Of parameters in parts, the masters and the gradients are those of this process's part.
    """
    taken, frozen = {}, frozen or {}
    for name, parameter in parameters.items():
        master, gradient, parameter.grad = masters[name], parameter.grad, None
        gradient = torch.zeros_like(master) if gradient is None else part(gradient)
        if name in frozen and gradient.shape != master.shape:
            gradient = gradient[~frozen[name]]
        taken[name] = gradient.to(master.dtype)
    return taken


@torch.no_grad()
def write_back(
    masters: Mapping[str, nn.Parameter],
    parameters: Mapping[str, nn.Parameter],
    frozen: Frozen | None = None,
) -> None:
    """Round the masters into the parameters that they are copies of."""
    frozen = frozen or {}
    for name, parameter in parameters.items():
        if name in frozen:
            parameter.masked_scatter_(~frozen[name], masters[name].to(parameter.dtype))
        elif masters[name] is not parameter:
            parameter.copy_(masters[name])


@torch.no_grad()
def gradient_norm(masters: Mapping[str, nn.Parameter], frozen: Frozen) -> Tensor:
    """Return the norm of all gradients.

    A vector of free entries is put among zeros first, one tensor at a time: the order of a sum
    decides its last bits, which must not depend on how the entries are stored.
    """
    norms = []
    for name, master in masters.items():
        gradient = master.grad
        if gradient is not None and name in frozen:
            whole = gradient.new_zeros(frozen[name].shape)
            gradient = whole.masked_scatter_(~frozen[name], gradient)
        if gradient is not None:
            norms.append(torch.linalg.vector_norm(gradient))
    return torch.linalg.vector_norm(torch.stack(norms))


def learning_rate(settings: LoopSettings, progress: float) -> float:
    """Return the rate at ``progress`` (0-1 of a cycle): linear warm-up, then the schedule."""
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (progress - settings.warmup) / (1 - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def cycle_progress(settings: LoopSettings, epochs: float) -> float:
    """Return how much of its cycle is done (0-1) after ``epochs`` epochs."""
    length = settings.epochs // settings.cycles
    return epochs % length / length


def restarts(settings: LoopSettings, epoch: int) -> bool:
    """Tell whether a cycle begins with this epoch."""
    return epoch % (settings.epochs // settings.cycles) == 0
