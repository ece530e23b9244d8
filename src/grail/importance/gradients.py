"""Per-sample gradient statistics, twice: a plain loop, and hooks over a batch. Same numbers.

Knows how a gradient is made of a module's inputs and output gradients; knows nothing of labels,
sides or what the statistics are for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grail.artifacts import Scores
from grail.data.encode import Batch
from grail.errors import InputError
from grail.importance.kernels import Fused
from grail.importance.rules import Call, rule_for
from grail.model import Policy, answer_logits, evaluating, token_nll, trainable

TokenLoss = Callable[[Tensor, Batch], Tensor]
"""(logits of the answer tokens, their batch) -> NLL in nats of each answer token."""

CHUNK_BYTES = 256 * 2**20
"""Per-sample gradients of one parameter are made for as many samples at once as fit in this."""


@dataclass
class Sums:
    """Running sums over samples of |g|, g and g squared, per parameter."""

    total_abs: dict[str, Tensor]
    total: dict[str, Tensor]
    total_sq: dict[str, Tensor]
    samples: int = 0

    @classmethod
    def zeros(cls, parameters: dict[str, nn.Parameter]) -> Sums:
        """Start at zero, in float32, beside the parameters."""

        def like() -> dict[str, Tensor]:
            return {n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()}

        return cls(like(), like(), like())

    def add(self, name: str, gradients: Float[Tensor, "N ..."]) -> None:
        """Add the gradients of N samples for one parameter."""
        flat = gradients.flatten(1)
        for sums, values in (
            (self.total_abs, flat.abs()),
            (self.total, flat),
            (self.total_sq, flat.square()),
        ):
            sums[name].view(-1).add_(values.sum(0))

    def scores(self) -> Scores:
        """Divide by the number of samples."""
        n = max(1, self.samples)

        def mean(sums: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: (value / n).cpu() for name, value in sums.items()}

        return Scores(mean(self.total_abs), mean(self.total), mean(self.total_sq), self.samples)


def nll_of_targets(logits: Float[Tensor, "K V"], batch: Batch) -> Float[Tensor, " K"]:
    """Return -log p in nats of the tokens that the batch names as targets."""
    return token_nll(logits, batch.targets[batch.at])


def add_by_loop(
    model: Policy, trials: Sequence[Batch], sums: Sums, loss: TokenLoss = nll_of_targets
) -> None:
    """Add one sample: one backward pass per trial, gradients averaged, then the three statistics.

    Args:
        model: The model; of its trainable parameters, those of ``sums`` are scored.
        trials: The sample with each trial's labels: batches of one row.
        sums: Where to add.
        loss: Loss of each answer token.
    """
    parameters = {name: p for name, p in trainable(model).items() if name in sums.total}
    mean: dict[str, Tensor] = {}
    with evaluating(model):
        for batch in trials:
            logits = answer_logits(model, batch.ids, batch.attention, batch.at)
            mean_loss = loss(logits, batch).mean() / len(trials)
            found = torch.autograd.grad(mean_loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    mean[name] = mean[name] + gradient.float() if name in mean else gradient.float()
    for name, gradient in mean.items():
        sums.add(name, gradient[None])
    sums.samples += 1


def add_by_batch(
    model: Policy,
    batch: Batch,
    trials: int,
    sums: Sums,
    loss: TokenLoss = nll_of_targets,
    fused: Fused | None = None,
) -> None:
    """Add all samples of a batch in one forward and one backward pass.

    The loss is the sum over samples of the mean over trials of the mean token NLL: any other
    reduction would weigh samples by who shares the batch.

    Args:
        model: The model; of its trainable parameters, those of ``sums`` are scored.
        batch: N * trials rows, the trials of a sample next to each other.
        trials: Rows per sample.
        sums: Where to add.
        loss: Loss of each answer token.
        fused: A kernel that adds the weights it takes without writing their gradients.
    """
    with evaluating(model), _watching(model, _Watch(batch, trials, sums, fused)):
        logits = answer_logits(model, batch.ids, batch.attention, batch.at)
        losses = loss(logits, batch)
        lengths = torch.tensor(batch.lengths, device=losses.device)
        weights = torch.repeat_interleave(1.0 / (lengths * trials), lengths)
        (losses * weights).sum().backward()
    sums.samples += len(batch.rows) // trials


@dataclass
class _Use:
    """The calls of one parameter's modules in one pass; complete when all came back."""

    calls: int = 0
    seen: list[tuple[Call, str]] = field(default_factory=list)


@contextmanager
def _watching(model: Policy, watch: _Watch) -> Iterator[None]:
    """Hook the modules that own trainable parameters; weight gradients themselves are switched off.

    Gradients are requested on the embeddings' output instead of on the weights: they flow through
    all layers, and autograd skips the weight-gradient products that the hooks make per sample.
    """
    parameters = trainable(model)
    watch.names = {id(p): n for n, p in parameters.items() if n in watch.sums.total}
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    handles = [embeddings.register_forward_hook(lambda _m, _i, out: _tracked(out))]
    handles += [
        module.register_forward_hook(watch.forward, with_kwargs=True)
        for module in model.modules()
        if any(id(p) in watch.names for p in module.parameters(recurse=False))
    ]
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.requires_grad_(True)
    watch.check_complete()


def _tracked(out: Tensor) -> Tensor:
    return out if out.requires_grad else out.requires_grad_(True)


class _Watch:
    """Collects (input, output gradient) pairs and turns them into sums as soon as it can."""

    def __init__(self, batch: Batch, trials: int, sums: Sums, fused: Fused | None) -> None:
        self.batch, self.trials, self.sums, self.fused = batch, trials, sums, fused
        self.names: dict[int, str] = {}
        self.uses: dict[str, _Use] = {}

    def forward(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], out: Any
    ) -> None:
        """Remember the input; when the output's gradient arrives, the pair is complete."""
        own = {
            kind: self.names[id(p)]
            for kind, p in module.named_parameters(recurse=False)
            if id(p) in self.names
        }
        if not own:
            return  # a rule differentiates the module with stand-ins for its parameters
        if not isinstance(out, Tensor) or len(inputs) != 1 or named:
            raise _not_batchable(type(module).__name__, "it takes or returns more than one tensor")
        for name in own.values():
            self.uses.setdefault(name, _Use()).calls += 1
        _tracked(out)  # an embedding of positions: with its weights off, no gradient would come
        given = inputs[0].detach()
        out.register_hook(lambda gradient: self._backward(module, own, given, gradient))

    def _backward(
        self, module: nn.Module, own: dict[str, str], given: Tensor, gradient: Tensor
    ) -> None:
        packed = given.shape[0] != self.batch.ids.shape[0]
        if packed and given.shape[0] != sum(self.batch.lengths):
            raise _not_batchable(type(module).__name__, "all rows of a batch share one call")
        call = Call(module, given, gradient.detach(), self._samples(packed))
        for kind, name in own.items():
            use = self.uses[name]
            use.seen.append((call, kind))
            if len(use.seen) == use.calls:
                self._flush(name, use)

    def _samples(self, packed: bool) -> list[int]:
        """Rows of the first axis that belong to each sample: whole rows, or answer tokens."""
        if not packed:
            return [self.trials] * (len(self.batch.rows) // self.trials)
        lengths = self.batch.lengths
        return [sum(lengths[i : i + self.trials]) for i in range(0, len(lengths), self.trials)]

    def _flush(self, name: str, use: _Use) -> None:
        self.uses[name] = _Use()
        call, kind = use.seen[0]
        if use.calls == 1 and self.fused is not None and self.fused.takes(call.module, kind):
            sums = (of[name] for of in (self.sums.total_abs, self.sums.total, self.sums.total_sq))
            self.fused.add(*call.flat(), *sums)
            return
        rules = [rule_for(*seen) for seen in use.seen]
        samples = len(self.batch.rows) // self.trials
        size = self.sums.total[name].numel() * 4
        chunk = max(1, CHUNK_BYTES // size)
        for first in range(0, samples, chunk):
            last = min(samples, first + chunk)
            gradients = rules[0](first, last)
            for other in rules[1:]:  # a weight used twice: its gradients add up before |.|
                gradients = gradients + other(first, last)
            self.sums.add(name, gradients)

    def check_complete(self) -> None:
        """Refuse to lose a contribution without a word."""
        unseen = [name for name in self.names.values() if name not in self.uses]
        if unseen:
            raise _not_batchable(unseen[0], "its module is never called: used in another way")
        left = [name for name, use in self.uses.items() if use.seen]
        if left:
            raise _not_batchable(left[0], "not all of its gradients arrived")


def _not_batchable(where: str, reason: str) -> InputError:
    return InputError(
        f"importance.gradients: batched cannot separate the samples in {where} "
        f"({reason}). Set importance.gradients: loop."
    )
