"""Which kernel scores the weights of Linear layers (``importance.kernel``)."""

import os
from collections.abc import Callable
from importlib.util import find_spec

import torch

from grail.errors import InputError

AddProducts = Callable[..., None]
"""Has the signature of ``grail.importance.triton_kernel.add_products``."""


def choose_kernel(kernel: str, device: torch.device) -> AddProducts | None:
    """Return the Triton kernel, refused where it cannot run; None for batched products (torch.bmm).

    ``auto`` means ``bmm``: the kernel is tested in Triton's interpreter, but its speed has not been
    measured on a GPU yet.
    """
    if kernel in ("auto", "bmm"):
        return None
    if find_spec("triton") is None:
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

    return add_products
