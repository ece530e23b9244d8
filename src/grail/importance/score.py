"""Stage 1: how important is each entry for one side of one domain (paper, Eq. 3).

Knows labels and gradients; knows nothing of thresholds, masks or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from grail.artifacts import STATISTICS, Scores
from grail.config import Importance
from grail.data.encode import Batch, Encoded, by_tokens, collate
from grail.data.labels import RandomLabels
from grail.importance.expected import ExpectedNll
from grail.importance.gradients import (
    TokenLoss,
    add_by_batch,
    add_by_loop,
    nll_of_targets,
)
from grail.importance.kernels import fused_for
from grail.importance.passes import passes
from grail.importance.sums import Sums
from grail.model import Policy, device_of, trainable
from grail.progress import Tick, silent

ALLOWED = {"torch.float64": 1e-5, "torch.float32": 1e-4}
"""Precision of the model -> relative difference that the self-check lets pass."""

WIDENED = 2 * 10**9
"""The self-check computes in float64 for models of up to so many weights (16 GB)."""


@dataclass(frozen=True)
class Scorer:
    """Scores rows of one side: what is drawn, how often, in which batches.

    Attributes:
        model: The model; its trainable parameters are scored.
        settings: The ``importance`` section.
        labels: Where random labels come from, or would (unused for ``labels: true``).
        pad: Padding token id.
    """

    model: Policy
    settings: Importance
    labels: RandomLabels
    pad: int

    def check(self) -> None:
        """Refuse settings that this model cannot be scored with.

        Raises:
            InputError: naming the setting to change.
        """
        passes(trainable(self.model), self.settings.memory_gib)
        fused_for(self.settings.kernel, device_of(self.model))

    def score(self, rows: Sequence[Encoded], tick: Tick = silent) -> Scores:
        """Return the statistics over ``rows``; every trial of a sample counts in its mean.

        Raises:
            InputError: if the model cannot be scored with these settings.
        """
        groups = passes(trainable(self.model), self.settings.memory_gib)
        statistics: dict[str, dict[str, Tensor]] = {name: {} for name in STATISTICS}
        for done, parameters in enumerate(groups):
            before = done * len(rows)

            def on(scored: int, before: int = before) -> None:
                tick(before + scored, len(rows) * len(groups), "rows scored")

            found = self._pass(rows, Sums.zeros(parameters), on)
            for name, values in statistics.items():
                values.update(getattr(found, name))
        return Scores(**statistics, samples=len(rows))

    def _pass(self, rows: Sequence[Encoded], sums: Sums, on: Callable[[int], None]) -> Scores:
        """Return the statistics of the parameters that ``sums`` holds."""
        loop = self.settings.gradients == "loop"
        fused = None if loop else fused_for(self.settings.kernel, device_of(self.model))
        for group in [[r] for r in rows] if loop else self._groups(rows):
            if loop:
                drawn = [self._batch([trial]) for trial in self._trials(group[0])]
                add_by_loop(self.model, drawn, sums, self._loss)
            else:
                copies = [trial for row in group for trial in self._trials(row)]
                add_by_batch(self.model, self._batch(copies), self.trials, sums, self._loss, fused)
            on(sums.samples)
        return sums.scores()

    @property
    def trials(self) -> int:
        """Trials per sample; true and expected labels do not vary, so one is enough."""
        return self.settings.trials if self.settings.labels == "random" else 1

    @property
    def _loss(self) -> TokenLoss:
        expected = self.settings.labels == "expected"
        return ExpectedNll(self.labels) if expected else nll_of_targets

    def _groups(self, rows: Sequence[Encoded]) -> list[list[Encoded]]:
        return by_tokens(rows, self.settings.batch_tokens, copies=self.trials)

    def _trials(self, row: Encoded) -> list[Encoded]:
        if self.settings.labels != "random":
            return [row]
        return [self.labels.draw(row, trial) for trial in range(self.trials)]

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self.pad, device_of(self.model))


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
        return replace(compare(run("batched"), run("loop")), precision=str(own))
    with _in_float64(scorer.model):
        return replace(compare(run("batched"), run("loop")), precision="torch.float64")


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


def compare(scores: Scores, reference: Scores) -> Agreement:
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
