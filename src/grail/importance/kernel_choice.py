"""Which Linear weights a fused kernel scores instead of rule and sums (``importance.kernel``).

Knows devices and sizes; knows nothing of samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

from grail.errors import InputError

SMALLEST = 2**20
"""``auto`` leaves smaller weights (factors of an adapter) to batched products.

256 tiles of 64 by 64: fewer would leave a large accelerator idle, and their gradients are small.
"""


@dataclass(frozen=True)
class Fused:
    """A kernel, and the weights it takes.

    Attributes:
        add: ``grail.importance.triton_kernel.add_products``.
        smallest: Entries that a weight must have.
    """

    add: Callable[..., None]
    smallest: int

    def takes(self, module: nn.Module, kind: str) -> bool:
        """Tell whether parameter ``kind`` of this module is the kernel's."""
        linear = type(module) is nn.Linear  # a subclass may compute more
        return linear and kind == "weight" and module.weight.numel() >= self.smallest


def fused_for(kernel: str, device: torch.device) -> Fused | None:
    """Return what ``importance.kernel`` asks for on this device; None: batched products alone.

    ``auto`` takes the kernel for large weights where there are CUDA and Triton, ``triton`` for all.

    Raises:
        InputError: if ``triton`` cannot run here.
    """
    there = find_spec("triton") is not None
    if kernel == "bmm" or (kernel == "auto" and not (there and device.type == "cuda")):
        return None
    if not there:
        raise InputError(
            "importance.kernel: triton, but Triton is not installed. Install the extra "
            "(pip install 'grail-unlearning[triton]', Linux only), or set importance.kernel: auto."
        )
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise InputError(
            f"importance.kernel: triton needs CUDA, but the model is on {device.type}. "
            "Set importance.kernel: auto, or TRITON_INTERPRET=1 to try it, slowly, on a processor."
        )
    from grail.importance.triton_kernel import add_products

    return Fused(add_products, SMALLEST if kernel == "auto" else 0)
