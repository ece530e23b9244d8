"""How a training loop steps: optimisers and learning rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


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
