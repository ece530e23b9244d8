"""How a training loop steps: optimisers and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grail.model.sharded import part


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
}


def masters_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return what an optimiser moves, by name: a float32 copy of each parameter in 16 bits.

    bfloat16 keeps 8 bits of a number: a step of less than 1/512 of a weight would round away, and
    at the rates of full weights nearly all steps are smaller. In a copy they add up. Parameters of
    32 bits or more are their own masters.
    """
    return {
        name: p if p.dtype.itemsize >= 4 else nn.Parameter(p.detach().float())
        for name, p in parameters.items()
    }


def take_gradients(
    parameters: Mapping[str, nn.Parameter], masters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Return the gradients in the masters' precision, zeros where there is none, and clear them.

    Of parameters in parts, the masters and the gradients are those of this process's part.
    """
    taken = {}
    for name, parameter in parameters.items():
        master, gradient, parameter.grad = masters[name], parameter.grad, None
        gradient = torch.zeros_like(master) if gradient is None else part(gradient)
        taken[name] = gradient.to(master.dtype)
    return taken


@torch.no_grad()
def write_back(masters: Mapping[str, nn.Parameter], parameters: Mapping[str, nn.Parameter]) -> None:
    """Round the masters into the parameters that they are copies of."""
    for name, parameter in parameters.items():
        if masters[name] is not parameter:
            parameter.copy_(masters[name])


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
