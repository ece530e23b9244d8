"""Scores computed batched and by the plain loop, compared on the user's own model."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from grail.artifacts import STATISTICS, Scores
from grail.data.encode import Encoded
from grail.importance.score import Scorer
from grail.model.forward import Policy, precision_of
from grail.model.quantisation import is_quantised
from grail.progress import Tick, silent

_ALLOWED = {"torch.float64": 1e-5, "torch.float32": 1e-4}
"""Precision of the model -> the largest relative difference that the self-check accepts."""

_LARGEST = 2 * 10**9
"""The self-check computes in float64 for models of at most this many weights (16 GB)."""


@dataclass(frozen=True)
class Agreement:
    """How far the batched statistics are from those of the loop.

    Attributes:
        worst: The largest relative difference over parameters and statistics.
        name: Where it is: ``NAME.statistic``.
        samples: How many samples were compared.
        precision: In which precision the model computed.
        own: In which precision a run scores this model.
        jaccard: Overlap (0-1) of the top sets of ``own`` with those of ``precision``; None where
            these are the same, because the model is too large for float64.
    """

    worst: float
    name: str
    samples: int
    precision: str = ""
    own: str = ""
    jaccard: float | None = None

    @property
    def allowed(self) -> float:
        """The largest difference that rounding explains, in the precision of the comparison."""
        return _ALLOWED.get(self.precision, 0.1)


def self_check(
    scorer: Scorer,
    rows: Sequence[Encoded],
    overlap: Callable[[Scores, Scores], float],
    tick: Tick = silent,
) -> Agreement:
    """Score ``rows`` batched and by the plain loop and compare (``grail score --check N``).

    ``overlap`` returns the Jaccard index of the top sets of two scorings.

    A model of up to ``_LARGEST`` weights computes in float64 meanwhile, so that the check measures
    the method and not the processor: in float32 a matrix product over several rows sums in another
    order than over one, and gradients through 30 layers amplify it. SmolLM2-135M with an adapter
    whose B is far from zero: under 1e-6 in float64; in float32 up to 1e-5, where the loop itself is
    6e-5 from float64. Larger models are compared in their own precision, as float64 might not fit;
    so are models of few bits, which have no other.

    Then the rows are scored as a run does. In 16 bits the ranking differs, whichever way is taken.
    """
    model = scorer.model
    wide = sum(p.numel() for p in model.parameters()) <= _LARGEST
    wide = wide and not any(map(is_quantised, model.modules()))  # bitsandbytes has no float64
    own = precision_of(model)
    precision = torch.float64 if wide else own
    with _in_float64(model) if wide else nullcontext():
        batched, looped = (
            replace(scorer, gradients=way).score(rows, tick) for way in ("batched", "loop")
        )
    jaccard = overlap(scorer.score(rows, tick), looped) if wide else None
    found = compare_scores(batched, looped)
    return replace(found, precision=str(precision), own=str(own), jaccard=jaccard)


@contextmanager
def _in_float64(model: Policy) -> Iterator[None]:
    """Compute in float64 inside the block; each weight comes back bit for bit, in its own type."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    types = [t.dtype for t in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.double()
        with _Float64ForFloat32():
            yield
    finally:
        for tensor, dtype in zip(tensors, types, strict=True):
            tensor.data = tensor.data.to(dtype)


class _Float64ForFloat32(TorchFunctionMode):
    """Computes in float64 what code asks for in float32 whatever its weights are, such as norms.

    Their float32 rounding differs between one row and several, and some models amplify it to more
    than the check accepts.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        def wider(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        func = Tensor.double if func is Tensor.float else func
        return func(*map(wider, args), **{k: wider(v) for k, v in (kwargs or {}).items()})


def compare_scores(scores: Scores, reference: Scores) -> Agreement:
    """Return the largest of max|a - b| / max|b| over parameters and statistics.

    mean_sq is compared by its root: all three are then in the unit of a gradient.
    """
    worst, where = 0.0, ""
    for statistic in STATISTICS:
        for name, b in getattr(reference, statistic).items():
            a = getattr(scores, statistic)[name]
            pair = (a.sqrt(), b.sqrt()) if statistic == "mean_sq" else (a, b)
            difference = relative_difference(*pair)
            if difference >= worst:
                worst, where = difference, f"{name}.{statistic}"
    return Agreement(worst, where, reference.samples)


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return max|a - b| / max|b|: 0 where both are zero everywhere, infinite at a NaN."""
    gap, scale = float((a - b).abs().max()), float(b.abs().max())
    if gap == 0:
        return 0.0
    return gap / scale if scale > 0 and math.isfinite(gap) else float("inf")
