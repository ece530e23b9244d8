"""Scores computed batched and by the plain loop, compared on the user's own model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from grail.artifacts import STATISTICS, Scores
from grail.data.encode import Encoded
from grail.importance.score import Scorer
from grail.model.forward import Policy
from grail.progress import Tick, silent

ALLOWED = {"torch.float64": 1e-5, "torch.float32": 1e-4}
"""Precision of the model -> relative difference that the self-check lets pass."""

WIDENED = 2 * 10**9
"""The self-check computes in float64 for models of up to so many weights (16 GB)."""


@dataclass(frozen=True)
class Agreement:
    """How far the batched statistics are from those of the loop.

    Attributes:
        worst: The largest relative difference over parameters and statistics.
        name: Where it is: ``NAME.statistic``.
        samples: How many samples were compared.
        precision: In which precision the model computed.
    """

    worst: float
    name: str
    samples: int
    precision: str = ""

    @property
    def allowed(self) -> float:
        """The largest difference that rounding explains, in the precision of the comparison."""
        return ALLOWED.get(self.precision, 0.1)


def self_check(scorer: Scorer, rows: Sequence[Encoded], tick: Tick = silent) -> Agreement:
    """Score ``rows`` batched and by the plain loop and compare (``grail score --check N``).

    A model of up to ``WIDENED`` weights computes in float64 meanwhile, so that what is measured is
    the method and not the processor: in float32 a matrix product over several rows sums in another
    order than over one, and gradients through 30 layers amplify it. SmolLM2-135M with an adapter
    whose B is far from zero: under 1e-6 in float64; in float32 up to 1e-5, where the loop itself is
    6e-5 from float64. Larger models are compared in their own precision: float64 might not fit.
    """

    def run(gradients: str) -> Scores:
        settings = scorer.settings.model_copy(update={"gradients": gradients})
        return Scorer(scorer.model, settings, scorer.labels, scorer.pad).score(rows, tick)

    weights = sum(p.numel() for p in scorer.model.parameters())
    if weights > WIDENED:
        own = next(scorer.model.parameters()).dtype
        return replace(compare_scores(run("batched"), run("loop")), precision=str(own))
    with _in_float64(scorer.model):
        return replace(compare_scores(run("batched"), run("loop")), precision="torch.float64")


@contextmanager
def _in_float64(model: Policy) -> Iterator[None]:
    """Widen all weights inside the block; each comes back bit for bit, in its own type."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    types = [t.dtype for t in tensors]
    widest = _Widest()
    hooks = [
        model.register_forward_pre_hook(lambda *_: widest.__enter__() and None),
        model.register_forward_hook(lambda *_: widest.__exit__(None, None, None), always_call=True),
    ]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.double()
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, was in zip(tensors, types, strict=True):
            tensor.data = tensor.data.to(was)


class _Widest(TorchFunctionMode):
    """Computes in float64 what a model's code computes in float32 whatever its weights are: norms.

    Rows of one and of several would differ there by float32's rounding, which some models amplify
    to more than the check lets pass.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        func = Tensor.double if func is Tensor.float else func
        return func(*map(_wider, args), **{k: _wider(v) for k, v in (kwargs or {}).items()})


def _wider(given: Any) -> Any:
    return torch.float64 if given is torch.float32 else given


def compare_scores(scores: Scores, reference: Scores) -> Agreement:
    """Return the largest of max|a - b| / max|b| over parameters and statistics.

    mean_sq is compared by its root: all three are then in the unit of a gradient.
    """
    worst, where = 0.0, ""
    for statistic in STATISTICS:
        for name, b in getattr(reference, statistic).items():
            a = getattr(scores, statistic)[name]
            roots = (a.sqrt(), b.sqrt()) if statistic == "mean_sq" else (a, b)
            difference = relative_difference(*roots)
            if difference >= worst:
                worst, where = difference, f"{name}.{statistic}"
    return Agreement(worst, where, reference.samples)


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return max|a - b| / max|b|: 0 where both are zero everywhere, infinite at a NaN."""
    gap, scale = float((a - b).abs().max()), float(b.abs().max())
    if gap == 0:
        return 0.0
    return gap / scale if scale > 0 and math.isfinite(gap) else float("inf")
