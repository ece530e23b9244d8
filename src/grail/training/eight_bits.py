"""AdamW with moments in 8 bits (arXiv 2110.02861), by bitsandbytes.

The moments of 256 neighbouring entries share a scale, and zero is rounded like any number: an entry
whose gradient was always zero can move. Frozen entries must not be among those that it is given.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from grail.errors import InputError

NAME_8BIT = "adamw8bit"
"""Its name in the settings."""

SMALLEST = 4096
"""Tensors of fewer entries keep their moments in float32: bitsandbytes' own limit."""

_KERNEL = "bitsandbytes::optimizer_update_8bit_blockwise"


def check_eight_bits(optimizer: str) -> None:
    """Refuse ``unlearning.optimizer: adamw8bit`` where there is nothing that computes it."""
    if optimizer != NAME_8BIT:
        return
    instead = "or use unlearning.optimizer: adamw."
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"unlearning.optimizer: {NAME_8BIT} needs bitsandbytes: pip install "
            f"'grail-unlearning[quantise]', {instead}"
        )
    if not torch.cuda.is_available() and not _on_cpus():
        raise InputError(
            f"unlearning.optimizer: {NAME_8BIT} has no kernel for a CPU in the installed "
            f"bitsandbytes, and there is no GPU. Install bitsandbytes 0.50 or later, {instead}"
        )


def _on_cpus() -> bool:
    import bitsandbytes  # noqa: F401  # type: ignore[reportUnusedImport]  # registers its kernels

    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(_KERNEL, "CPU"))
    except RuntimeError:  # it has no such operation at all
        return False


def adamw8bit(parameters: Sequence[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Return bitsandbytes' optimizer, without decay, with a state of plain tensors.

    Its own ``state_dict`` hides tensors in an inner dictionary, and counts steps in an int.
    """
    from bitsandbytes.optim.adamw import AdamW8bit

    made: Any = AdamW8bit(parameters, lr=rate, weight_decay=0.0, min_8bit_size=SMALLEST)
    made.state_dict = partial(_state_dict, made)
    made.load_state_dict = partial(_load_state_dict, made)
    return made


def _state_dict(made: Any) -> dict[str, Any]:
    """Return the state without the two tables of codes, which are the same for all tensors."""
    whole = torch.optim.Optimizer.state_dict(made)
    state = {
        index: {
            key: torch.tensor(float(value)) if key == "step" else value
            for key, value in values.items()
            if not key.startswith("qmap")
        }
        for index, values in whole["state"].items()
    }
    return {**whole, "state": state}


def _load_state_dict(made: Any, whole: Mapping[str, Any]) -> None:
    state = {
        index: {**values, "step": int(values["step"])} for index, values in whole["state"].items()
    }
    type(made).load_state_dict(made, {**whole, "state": state})
    for parameter, values in made.state.items():
        if values["state1"].dtype == torch.uint8:
            for key, name in (("qmap1", "dynamic"), ("qmap2", "udynamic")):
                made.name2qmap[name] = made.name2qmap[name].to(parameter.device)
                values[key] = made.name2qmap[name]
