"""The mask in a training loop of your own: around a torch optimizer, or in transformers' Trainer.

optimizer = MaskedOptimizer(torch.optim.AdamW(model.parameters()), model, read_mask(path))
...                  # any loop: accumulation, clip_grad_norm_, learning rate schedulers
optimizer.prove()    # raises if a bit of a frozen entry changed
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grail.artifacts import Mask
from grail.errors import InputError
from grail.model.forward import trainable
from grail.training.freezing import Freezing


class MaskedOptimizer(torch.optim.Optimizer):
    """A torch optimizer that leaves the frozen entries of a mask as they are, bit for bit.

    Gradients are masked as soon as a backward pass has added to them, so that clipping takes the
    norm of the free entries alone. What the optimizer itself does to frozen entries (weight decay,
    momentum, updates that mix entries) is undone in the same step. Everything else, such as
    ``param_groups`` and ``state_dict``, is the wrapped optimizer's.
    """

    _step_supports_amp_scaling = False  # a fused optimizer's: a GradScaler must unscale beforehand

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module, mask: Mask) -> None:
        """Wrap ``optimizer``, which trains ``model``, before the first backward pass.

        Raises:
            InputError: if the mask has other entries for each side, or if it names parameters that
                the model does not train, or trains in another shape or in shards.
        """
        parameters = trainable(model)
        _check(parameters, mask)
        self.optimizer = optimizer  # no super().__init__: the state is the wrapped optimizer's
        for method in ("zero_grad", "add_param_group", "state_dict", "load_state_dict"):
            setattr(self, method, getattr(optimizer, method))
        self.freezing = Freezing(parameters, mask)
        for name, bits in self.freezing.frozen.items():
            parameters[name].register_post_accumulate_grad_hook(partial(_mask_gradient, bits))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped optimizer."""
        if name == "optimizer":  # while this object is being made
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step; frozen entries come out with the bits that they had before."""
        entries = [(self.freezing.parameters[n], b) for n, b in self.freezing.frozen.items()]
        with torch.no_grad():
            for parameter, bits in entries:
                _mask_gradient(bits, parameter)  # it may have been set by hand
            before = [parameter[bits] for parameter, bits in entries]
        loss = self.optimizer.step(closure)  # type: ignore[arg-type]
        with torch.no_grad():
            for (parameter, bits), values in zip(entries, before, strict=True):
                parameter[bits] = values
        return loss

    def prove(self) -> dict[str, Any]:
        """Compare all weights with those when the optimizer was wrapped: counts and digests.

        Raises:
            RuntimeError: if a frozen entry changed, which then was done outside of ``step``.
        """
        return self.freezing.proof()


class MaskedTrainerMixin:
    """Freezes the entries of a mask in ``transformers.Trainer`` and its subclasses.

        class MaskedTrainer(MaskedTrainerMixin, Trainer): ...
        trainer = MaskedTrainer(model=model, args=arguments, train_dataset=rows, mask=mask)
        trainer.train()
        trainer.prove()

    Accumulation, clipping, weight decay, schedules and data parallelism work as without a mask.
    Refused are FSDP, DeepSpeed and other ways to shard a model, whose parameters are not the mask's
    tensors, and optimizers that update weights during the backward pass (LOMO, layer-wise GaLore).
    """

    def __init__(self, *arguments: Any, mask: Mask, **more: Any) -> None:
        """Make the trainer; all but ``mask`` are its own arguments.

        Raises:
            InputError: for a way of training that the mask cannot be held in.
        """
        super().__init__(*arguments, **more)
        trainer: Any = self
        kind, optim = trainer.accelerator.distributed_type.value, str(trainer.args.optim).lower()
        if kind not in ("NO", "MULTI_CPU", "MULTI_GPU"):
            raise InputError(f"a mask needs whole parameters, but {kind} shards them or moves them")
        if "layerwise" in optim or "lomo" in optim:
            raise InputError(f"optim: {optim} updates weights before their gradient is masked")
        self.mask, self.masked_optimizer = mask, None

    def create_optimizer(self, *arguments: Any) -> torch.optim.Optimizer:
        """Create the trainer's optimizer and put the mask around it."""
        optimizer = super().create_optimizer(*arguments)  # type: ignore[misc]
        inner = getattr(optimizer, "optimizer", None)  # accelerate's wrapper, in a second train()
        if self.masked_optimizer is None or self.masked_optimizer not in (optimizer, inner):
            model = self.model  # type: ignore[attr-defined]
            optimizer = MaskedOptimizer(optimizer, model, self.mask)
            self.optimizer = self.masked_optimizer = optimizer
        return optimizer

    def prove(self) -> dict[str, Any]:
        """Prove the freezing after ``train``; see ``MaskedOptimizer.prove``."""
        if self.masked_optimizer is None:
            raise RuntimeError("there is nothing to prove before train() was called")
        return self.masked_optimizer.prove()


def _mask_gradient(bits: Tensor, parameter: Tensor) -> None:
    if parameter.grad is not None:
        parameter.grad.masked_fill_(bits, 0.0)


def _check(parameters: dict[str, nn.Parameter], mask: Mask) -> None:
    if mask.by_side:
        raise InputError(
            "this mask freezes other entries for the unlearn than for the retain gradient "
            "(localization.freeze: by_side), and an optimizer sees only their sum. Make one with "
            "localization.freeze: static."
        )
    check_shapes(parameters, mask)


def check_shapes(parameters: Mapping[str, nn.Parameter], mask: Mask) -> None:
    """Refuse a mask of another model: of other parameters, other shapes, or in shards."""
    for name, bits in mask.frozen.items():
        if name not in parameters:
            raise InputError(f"the mask freezes entries of {name}, which the model does not train")
        parameter = parameters[name]
        if parameter.shape != bits.shape or hasattr(parameter, "device_mesh"):
            raise InputError(
                f"the mask has shape {tuple(bits.shape)} for {name}, but the model has "
                f"{tuple(parameter.shape)}, or shards it. Use the mask's own model, not sharded."
            )
