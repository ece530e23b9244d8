"""A frozen base in 4 or 8 bits under an adapter (QLoRA, arXiv 2305.14314), by bitsandbytes.

Linear weights are stored by bitsandbytes; embedding and LM head in 8 bits (``vocabulary``) in both
cases. Norms keep ``model.dtype``.
"""

import logging
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from grail.errors import InputError


def check_quantisation(kind: str | None) -> None:
    """Refuse ``model.quantise`` where its package is missing."""
    if kind is not None and find_spec("bitsandbytes") is None:
        raise InputError(
            f"model.quantise: {kind} needs bitsandbytes: pip install 'grail-unlearning[quantise]', "
            "or set model.quantise: null."
        )


def loading_options(kind: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """Return what ``from_pretrained`` must be told to store Linear weights in fewer bits.

    ``kind`` is "nf4" (4 bits with doubly quantised scales, as in QLoRA), "int8" (a scale for each
    row of a weight; inputs are not rounded, see ``settle``) or None; ``dtype`` is the precision of
    the products. InputError if bitsandbytes is not installed.
    """
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")  # PEFT imports it where it is
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)
    check_quantisation(kind)
    if kind is None:
        return {}
    from transformers import BitsAndBytesConfig

    four: dict[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }
    settings: dict[str, Any] = four if kind == "nf4" else {"load_in_8bit": True}
    return {"quantization_config": BitsAndBytesConfig(**settings)}


def _is_news(record: logging.LogRecord) -> bool:
    return "kernels-community" not in record.getMessage()  # a package that it can do without


def settle(model: nn.Module) -> None:
    """Let each quantised layer compute one function of its input, with the weights as loaded.

    bitsandbytes itself would make two exceptions. 8-bit layers round their inputs, too, except for
    columns with large entries in any row: a row's answer would depend on its batch and on later
    tokens. 4-bit weights are rearranged in place, on some processors, at the first call without
    gradients.
    """
    for layer in model.modules():
        if _kind(layer) == "Int8Params":
            layer.forward = partial(_forward, layer)
        elif is_quantised(layer):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


class _Rounded(torch.autograd.Function):
    """x W^T for a W of 8-bit rows with a scale each, widened anew where it is read."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
        """Compute the products."""
        ctx.save_for_backward(rows, scale)
        return nn.functional.linear(x, widened(rows, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Compute the gradient of the input; the weight has none."""
        rows, scale = ctx.saved_tensors
        return gradients[0] @ widened(rows, scale, gradients[0].dtype), None, None


def _forward(layer: Any, x: Tensor) -> Tensor:
    out: Any = _Rounded.apply(x, layer.weight.data, layer.weight.SCB)  # type: ignore
    return out if layer.bias is None else out + layer.bias


def widened(
    rows: Int8[Tensor, "O I"], largest: Float[Tensor, " O"], dtype: torch.dtype
) -> Float[Tensor, "O I"]:
    """Return a weight of 8-bit rows, whose largest entries stand for 127, in a precision."""
    return (rows * (largest[:, None].float() / 127)).to(dtype)


def is_quantised(layer: nn.Module) -> bool:
    """Tell whether a layer's own weight is stored in 4 or 8 bits."""
    return _kind(layer) in ("Params4bit", "Int8Params")


def _kind(layer: nn.Module) -> str:
    return type(layer._parameters.get("weight")).__name__


@torch.no_grad()
def plain_weight(layer: Any) -> Float[Tensor, "O I"]:
    """Return a copy of the weight that a Linear layer computes with, in float32."""
    if not is_quantised(layer):
        return layer.weight.float().clone()
    if _kind(layer) == "Int8Params":
        return widened(layer.weight.data, layer.weight.SCB, torch.float32)
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
