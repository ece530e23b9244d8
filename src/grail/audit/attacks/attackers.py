"""Who relearns: what an attacker trains, by which optimizer and how fast; undone afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import nn

from grail.config.run import FULL_WEIGHTS_RATE, Config, Lora
from grail.config.unlearning import Unlearning
from grail.errors import InputError
from grail.model.forward import Policy, is_adapter, trainable
from grail.model.weights import copy_weights, holding

_AROUND = (0.25, 1.0, 4.0)
"""Default rates over that of unlearning. One rate understates an attack: what returns at a low
one may only break at a high one, and the other way round."""


@dataclass(frozen=True)
class Attacker:
    """One attacker.

    Attributes:
        learning_rate: The rate of all steps.
        train: "adapter" or "all" (weights); None: what the run itself trains.
        optimizer: "adamw" or "sgd".
        lora: The adapter, where the model has none.
    """

    learning_rate: float
    train: str | None = None
    optimizer: str = "adamw"
    lora: Lora = field(default_factory=Lora, compare=False)

    @property
    def name(self) -> str:
        """The attacker in words: "0.002", "2e-05, all, sgd"."""
        words = (self.train, "" if self.optimizer == "adamw" else self.optimizer)
        return ", ".join([f"{self.learning_rate:g}", *filter(None, words)])


def attackers(config: Config) -> list[Attacker]:
    """Return the attackers of a run: every rate of everything trained by every optimizer."""
    settings, own = config.audit.relearn, "all" if config.model.lora is None else "adapter"
    default = {"all": FULL_WEIGHTS_RATE, "adapter": Unlearning().learning_rate}
    default[own] = config.unlearning.learning_rate
    found: list[Attacker] = []
    for train, optimizer in product(settings.train or [own], settings.optimizer):
        rates = settings.learning_rate or [share * default[train] for share in _AROUND]
        found += [Attacker(rate, None if train == own else train, optimizer) for rate in rates]
    return list(dict.fromkeys(found))


def check_attackers(config: Config) -> None:
    """Refuse an attacker who would train weights that are stored in few bits."""
    if config.model.quantise and "all" in (config.audit.relearn.train or ()):
        raise InputError(
            f"audit.relearn.train: all cannot train {config.model.quantise} weights (model.quantise"
            "). Use adapter, or audit a run of the same adapter without model.quantise."
        )


@contextmanager
def trained(model: Policy, attacker: Attacker, seed: int) -> Iterator[Any]:
    """Yield the parameters that an attacker trains; afterwards the model is as it was, to the bit.

    Under "all" the base of an adapter is trained in float32 and the adapter stays: what is trained
    is the merged model. Under "adapter" a model without one gets a new one for the time.
    """
    train = attacker.train
    if train is None or (train == "adapter") == is_adapter(model):
        with holding(model, copy_weights(model)):
            yield list(trainable(model).values())
    elif train == "all":
        own, base = trainable(model), dict(model.named_parameters())
        base = {n: p for n, p in base.items() if n not in own and p.is_floating_point()}
        copies = {name: p.detach().clone().float() for name, p in base.items()}
        with holding(model, copies), _free(base.values(), own.values()):
            yield list(base.values())
    else:
        base = list(trainable(model).values())
        with _new_adapter(model, attacker.lora, seed) as added, _free(added, base):
            yield added


@contextmanager
def _free(free: Any, fixed: Any) -> Iterator[None]:
    """Let some parameters take gradients and others none inside the block; turn that round."""
    pairs = [*((p, True) for p in free), *((p, False) for p in fixed)]
    for parameter, takes in pairs:
        parameter.requires_grad_(takes)
    try:
        yield
    finally:
        for parameter, takes in pairs:
            parameter.grad = None
            parameter.requires_grad_(not takes)


@contextmanager
def _new_adapter(model: Any, lora: Lora, seed: int) -> Iterator[list[nn.Parameter]]:
    from peft import LoraConfig, LoraModel

    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted: Any = LoraModel(model, {"default": settings}, "default")
    del model.peft_config  # else the model itself would be taken for an adapter
    try:
        yield [p for name, p in model.named_parameters() if ".lora_" in name]
    finally:
        adapted.unload()
