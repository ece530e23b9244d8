"""One rule per kind of layer: from a call's input and output gradient to per-sample gradients.

For a linear layer y = x W^T, the gradient of sample n is the sum over its tokens of the outer
product of output gradient and input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_MOST_PADDING = 1.5
"""Samples are computed one by one where padding would make them this many times as large."""

PerSample = Callable[[int, int], Tensor]
"""(first, last) -> gradients of samples first..last-1: (last - first, *parameter), in float32
(float64 where the model computes in it)."""


@dataclass(frozen=True)
class Call:
    """One call of a module, complete once its output's gradient is known.

    Attributes:
        module: The module.
        inputs: Its input, first axis rows (trials of a sample next to each other) or answer tokens.
        gradient: Gradient of the loss with respect to its output, same leading axes.
        rows: How many entries of the first axis belong to each sample.
    """

    module: nn.Module
    inputs: Tensor
    gradient: Tensor
    rows: list[int]

    def part(self, first: int, last: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return input, output gradient and rows of samples first..last-1."""
        ends = list(accumulate(self.rows, initial=0))
        span = slice(ends[first], ends[last])
        return self.inputs[span], self.gradient[span], self.rows[first:last]

    def flat(self) -> tuple[Float[Tensor, "K I"], Float[Tensor, "K O"], list[int]]:
        """Return input and output gradient token by token, and how many belong to each sample."""
        tokens = self.inputs.shape[1:-1].numel()
        lengths = [rows * tokens for rows in self.rows]
        return self.inputs.flatten(0, -2), self.gradient.flatten(0, -2), lengths


def rule_for(call: Call, kind: str) -> PerSample:
    """Choose the rule for parameter ``kind`` ("weight", "bias", ...) of the call's module."""
    rule = RULES.get((type(call.module), kind))  # exact types: a subclass may compute more
    if rule is None:
        return lambda first, last: _any_module(call, kind, first, last)
    return lambda first, last: rule(call, first, last)


def _linear(call: Call, first: int, last: int) -> Float[Tensor, "N O I"]:
    x, delta, rows = call.part(first, last)
    if x.dim() == 2:
        return (_one_by_one if _alone(x, rows) else _together)(_flat(x), _flat(delta), rows)
    n = len(rows)
    return torch.bmm(_fold(delta, n).transpose(1, 2), _fold(x, n))


def _alone(x: Float[Tensor, "K I"], rows: list[int]) -> bool:
    """Tell whether packed samples are computed one by one.

    On a CPU, copying them into a padded block takes longer than the products. An accelerator would
    wait for one launch per sample, unless padding costs more.
    """
    return x.device.type == "cpu" or max(rows) * len(rows) > _MOST_PADDING * sum(rows)


def _one_by_one(
    x: Float[Tensor, "K I"], delta: Float[Tensor, "K O"], rows: list[int]
) -> Float[Tensor, "N O I"]:
    if x.shape[1] < delta.shape[1]:  # 8 x 1536 takes a third of the time of 1536 x 8
        return _one_by_one(delta, x, rows).transpose(1, 2)
    pairs = zip(x.split(rows), delta.split(rows), strict=True)
    return torch.stack([d.T @ a for a, d in pairs])


def _together(
    x: Float[Tensor, "K I"], delta: Float[Tensor, "K O"], rows: list[int]
) -> Float[Tensor, "N O I"]:
    """Compute all at once, each sample padded to the longest with the first token times zero."""
    lengths = torch.tensor(rows, device=x.device)
    positions = torch.arange(max(rows), device=x.device)
    real = positions < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    index = torch.where(real, starts[:, None] + positions, 0)
    return torch.bmm((delta[index] * real[..., None]).transpose(1, 2), x[index])


def _conv1d(call: Call, first: int, last: int) -> Float[Tensor, "N I O"]:
    return _linear(call, first, last).transpose(1, 2)


def _bias(call: Call, first: int, last: int) -> Float[Tensor, "N O"]:
    _, delta, rows = call.part(first, last)
    return torch.stack([_flat(d).sum(0) for d in delta.split(rows)])


def _embedding(call: Call, first: int, last: int) -> Float[Tensor, "N V I"]:
    ids, delta, rows = call.part(first, last)
    assert isinstance(call.module, nn.Embedding), "chosen by rule_for"
    shape, padding = call.module.weight.shape, call.module.padding_idx
    out = _wide(delta.new_zeros(0)).new_zeros((len(rows), *shape))
    for n, (i, d) in enumerate(zip(ids.split(rows), delta.split(rows), strict=True)):
        out[n].index_add_(0, i.flatten(), _flat(d))
    if padding is not None:
        out[:, padding] = 0
    return out


def _any_module(call: Call, kind: str, first: int, last: int) -> Float[Tensor, "N ..."]:
    """Differentiate the module itself, sample by sample: norms, scales, any map of one tensor."""
    x, delta, rows = call.part(first, last)
    state = {name: p.detach() for name, p in call.module.named_parameters()}
    gradients = []
    for a, d in zip(x.split(rows), delta.split(rows), strict=True):
        with torch.enable_grad():
            leaf = state[kind].clone().requires_grad_(True)
            out = torch.func.functional_call(call.module, {**state, kind: leaf}, (a,))
            gradients.append(_wide(torch.autograd.grad(out, leaf, d.to(out.dtype))[0]))
    return torch.stack(gradients)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _flat(x: Tensor) -> Float[Tensor, "K F"]:
    return _wide(x.reshape(-1, x.shape[-1]))


def _fold(x: Tensor, samples: int) -> Float[Tensor, "N K F"]:
    """Concatenate the trials of a sample along the token axis."""
    return _wide(x.reshape(samples, -1, x.shape[-1]))


RULES = {
    (nn.Linear, "weight"): _linear,
    (nn.Linear, "bias"): _bias,
    (Conv1D, "weight"): _conv1d,
    (Conv1D, "bias"): _bias,
    (nn.Embedding, "weight"): _embedding,
}
"""(Type of the module, its parameter) -> rule; any other module is differentiated itself."""
