"""Hooks that turn one backward pass over a batch into per-sample gradients.

Knows how the tokens of samples lie in a module's input; knows nothing of labels, sides or what the
gradients are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from grail.errors import InputError
from grail.importance.kernel_choice import Fused
from grail.importance.rules import Call, rule_for
from grail.importance.sums import Sums
from grail.model.forward import Policy, trainable
from grail.model.fused_lora import LoraGradients, OnBackward, fused, lora_layers

CHUNK_BYTES = 256 * 2**20
"""Per-sample gradients of one parameter are made for as many samples at once as fit in this."""


@dataclass(frozen=True)
class Layout:
    """How many places of a module's input belong to each sample.

    Attributes:
        answers: Answer tokens, where the LM head reads them alone.
        rows: Rows of the padded batch; or
        tokens: Tokens of the packed sequence.
    """

    answers: list[int]
    rows: list[int] | None = None
    tokens: list[int] | None = None

    def call(self, module: nn.Module, given: Tensor, gradient: Tensor) -> Call:
        """Return a module's call with the samples along the first axis.

        Raises:
            InputError: if they cannot be told apart.
        """
        head = given.dim() == 2 and given.is_floating_point()
        if self.tokens is not None and not head and given.shape[:2] == (1, sum(self.tokens)):
            return Call(module, given[0], gradient[0], self.tokens)
        if self.rows is not None and given.shape[0] == sum(self.rows):
            return Call(module, given, gradient, self.rows)
        if given.shape[0] == sum(self.answers):
            return Call(module, given, gradient, self.answers)
        where = type(module).__name__
        raise not_batchable(where, "all rows of a batch share one call")


@dataclass
class _Use:
    """The calls of one parameter's modules in one pass; complete when all came back."""

    calls: int = 0
    seen: list[tuple[Call, str]] = field(default_factory=list)


@contextmanager
def watching(model: Policy, watch: Watch) -> Iterator[None]:
    """Hook the modules that own trainable parameters; weight gradients themselves are switched off.

    Gradients are requested on the embeddings' output instead of on the weights: they flow through
    all layers, and autograd skips the weight-gradient products that the hooks make per sample.
    A LoRA layer that computes in one step tells of its halves itself.
    """
    parameters = trainable(model)
    watch.names = {id(p): n for n, p in parameters.items() if n in watch.sums.total}
    inside = {id(part) for layer in lora_layers(model) for part in layer.modules()}
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    handles = [embeddings.register_forward_hook(lambda _m, _i, out: _tracked(out))]
    handles += [
        module.register_forward_hook(watch.forward, with_kwargs=True)
        for module in model.modules()
        if id(module) not in inside and watch.own(module)
    ]
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        with fused(model, watch.layer):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.requires_grad_(True)
    watch.check_complete()


def _tracked(out: Tensor) -> Tensor:
    return out if out.requires_grad else out.requires_grad_(True)


class Watch:
    """Collects (input, output gradient) pairs and turns them into sums as soon as it can."""

    def __init__(self, layout: Layout, sums: Sums, fused: Fused | None) -> None:
        self.layout, self.sums, self.fused = layout, sums, fused
        self.names: dict[int, str] = {}
        self.uses: dict[str, _Use] = {}

    def own(self, module: nn.Module) -> dict[str, str]:
        """Return the scored parameters that a module computes with: kind -> name."""
        every = module.named_parameters(recurse=False)
        return {kind: self.names[id(p)] for kind, p in every if id(p) in self.names}

    def layer(self, module: nn.Module) -> OnBackward:
        """Await one call of a LoRA layer."""
        layer: Any = module
        a, b = (half[layer.active_adapters[0]] for half in (layer.lora_A, layer.lora_B))
        own_a, own_b = self.own(a), self.own(b)
        self._await([*own_a.values(), *own_b.values()])

        def seen(halves: LoraGradients) -> None:
            self._take(a, own_a, halves.x, halves.gradient_a)
            self._take(b, own_b, halves.inner, halves.gradient_b)

        return seen

    def forward(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], out: Any
    ) -> None:
        """Remember the input; when the output's gradient arrives, the pair is complete."""
        own = self.own(module)
        if not own:
            return  # a rule differentiates the module with stand-ins for its parameters
        if not isinstance(out, Tensor) or len(inputs) != 1 or named:
            raise not_batchable(type(module).__name__, "it takes or returns more than one tensor")
        self._await(own.values())
        _tracked(out)  # an embedding of positions: with its weights off, no gradient would come
        given = inputs[0].detach()
        out.register_hook(lambda gradient: self._take(module, own, given, gradient.detach()))

    def _await(self, names: Iterable[str]) -> None:
        for name in names:
            self.uses.setdefault(name, _Use()).calls += 1

    def _take(
        self, module: nn.Module, own: dict[str, str], given: Tensor, gradient: Tensor
    ) -> None:
        if not own:
            return
        call = self.layout.call(module, given, gradient)
        for kind, name in own.items():
            use = self.uses[name]
            use.seen.append((call, kind))
            if len(use.seen) == use.calls:
                self._flush(name, use)

    def _flush(self, name: str, use: _Use) -> None:
        self.uses[name] = _Use()
        call, kind = use.seen[0]
        if use.calls == 1 and self.fused is not None and self.fused.takes(call.module, kind):
            sums = (of[name] for of in (self.sums.total_abs, self.sums.total, self.sums.total_sq))
            self.fused.add(*call.flat(), *sums)
            return
        rules = [rule_for(*seen) for seen in use.seen]
        size = self.sums.total[name].numel() * 4
        chunk = max(1, CHUNK_BYTES // size)
        samples = len(call.rows)
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
            raise not_batchable(unseen[0], "its module is never called: used in another way")
        left = [name for name, use in self.uses.items() if use.seen]
        if left:
            raise not_batchable(left[0], "not all of its gradients arrived")


def not_batchable(where: str, reason: str) -> InputError:
    """Return the error for a model whose samples cannot be told apart."""
    return InputError(
        f"importance.gradients: batched cannot separate the samples in {where} "
        f"({reason}). Set importance.gradients: loop."
    )
