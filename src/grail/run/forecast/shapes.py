"""Models by their shape alone: no weight is read or drawn, so that any size can be planned."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from grail.config.run import Model
from grail.errors import InputError, did_you_mean
from grail.model.forward import Policy, logits_at
from grail.model.load import new_adapter

_LLAMA: dict[str, tuple[int, ...]] = {
    "1b": (2048, 8192, 16, 32, 8, 128256),
    "7b": (4096, 11008, 32, 32, 32, 32000),
    "13b": (5120, 13824, 40, 40, 40, 32000),
    "70b": (8192, 28672, 80, 64, 8, 128256),
}
"""Name -> hidden and MLP width, layers, heads, key-value heads and vocabulary, of Llama 3.2 1B,
Llama 2 7B and 13B, and Llama 3 70B."""

SHAPES = tuple(_LLAMA)


def shaped(shape: str, settings: Model) -> Policy:
    """Return a model of a shape on the meta device, with the adapter that the settings ask for.

    ``shape`` is one of ``SHAPES``, or a folder or Hub id with a ``config.json``; InputError for
    another.
    """
    from transformers import AutoModelForCausalLM

    config = _configuration(shape)
    kind = torch.float32 if settings.dtype == "float32" else torch.bfloat16
    if settings.lora is None and settings.dtype == "auto":
        kind = torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation="eager")
        if settings.lora is not None:
            return new_adapter(model, settings.lora, seed=0)
    return model


def _configuration(shape: str) -> Any:
    from transformers import AutoConfig, LlamaConfig

    if shape in _LLAMA:
        hidden, inner, layers, heads, keys, vocabulary = _LLAMA[shape]
        return LlamaConfig(
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=keys,
            vocab_size=vocabulary,
            tie_word_embeddings=shape == "1b",
        )
    try:
        return AutoConfig.from_pretrained(Path(shape) if Path(shape).exists() else shape)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--shape: {shape} is neither one of {', '.join(SHAPES)} nor a folder or a cached Hub "
            f"id with a config.json.{did_you_mean(shape, SHAPES)}"
        ) from error


@dataclass(frozen=True)
class Pass:
    """One pass over rows, forward and backward.

    Attributes:
        kept: Bytes that autograd keeps between the two, parameters left out.
        layer: The part of them that one of the model's layers keeps.
        inputs: Bytes of the inputs of all layers: what checkpointing keeps of them.
        outside: The part of ``kept`` that no layer keeps: of embeddings, head and loss.
        flops: Floating point operations.
    """

    kept: int
    layer: int
    inputs: int
    outside: int
    flops: int

    def activations(self, checkpointing: bool) -> int:
        """Return the most bytes that a training keeps for its backward pass."""
        return self.inputs + self.layer + self.outside if checkpointing else self.kept

    def most(self, gradients: int, checkpointing: bool) -> int:
        """Return the most that activations and gradients take together; the latter at the end.

        A layer's gradients come when its activations go: there are all activations before any
        gradient, and the last layer's with all gradients.
        """
        return max(self.activations(checkpointing), gradients + self.layer)


def traced(model: Policy, rows: int, length: int, answers: int) -> Pass:
    """Follow one pass over ``rows`` rows of ``length`` tokens, ``answers`` of them in each.

    Nothing is computed: the model is on the meta device.
    """
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    layers, marks = _layers(model), list[int]()

    def mark(*_: Any) -> None:
        marks.append(_bytes(kept))

    handles = [layer.register_forward_hook(mark) for layer in layers]
    hidden = model.get_input_embeddings().weight  # type: ignore[operator]
    inputs = {
        "input_ids": torch.zeros((rows, length), dtype=torch.long, device="meta"),
        "position_ids": torch.zeros((1, length), dtype=torch.long, device="meta"),
        "attention_mask": torch.zeros((1, 1, 1, 1), dtype=hidden.dtype, device="meta"),
    }  # the mask in its final form: transformers would look into another
    at = torch.zeros(rows * answers, dtype=torch.long, device="meta")
    forward, backward = (FlopCounterMode(display=False) for _ in range(2))
    model.train()
    try:
        with forward, saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = logits_at(model, (at, at), **inputs)
            loss = nn.functional.cross_entropy(logits.float(), at)
        total = _bytes(kept)
        with backward:
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    checkpoints = len(layers) * rows * length * hidden.shape[1] * hidden.element_size()
    layer = max((b - a for a, b in pairwise(marks)), default=total)
    flops = forward.get_total_flops() + backward.get_total_flops()
    outside = max(0, total - len(layers) * layer)
    return Pass(total, layer, checkpoints, outside, flops)


def _bytes(kept: dict[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _layers(model: Policy) -> list[nn.Module]:
    """Return the longest list of modules of one class: the transformer's layers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return list(max(lists, key=len, default=nn.ModuleList()))


def block_bytes(model: Policy) -> tuple[int, int]:
    """Return the bytes of the parameters in a model's blocks, and how many blocks there are."""
    blocks = _layers(model)
    return sum(p.nbytes for block in blocks for p in block.parameters()), max(1, len(blocks))


def frozen_linear_entries(model: Policy) -> int:
    """Return the entries of the frozen Linear weights but the LM head's: those of few bits."""
    head: Any = model.get_output_embeddings().weight  # type: ignore[operator]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.weight is not head]
    return sum(m.weight.numel() for m in linear if not m.weight.requires_grad)
