"""Hooks that turn one backward pass over a batch into per-sample gradients."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from grail.errors import InputError
from grail.importance.kernel_choice import AddProducts
from grail.importance.rules import Call, rule_for
from grail.importance.sums import Sums, add_statistics
from grail.model.forward import Policy, trainable
from grail.model.fused_lora import LoraGradients, OnBackward, fused, lora_layers

CHUNK_BYTES = 256 * 2**20
"""Per-sample gradients of one parameter are computed for as many samples at once as fit in this."""


@dataclass(frozen=True)
class Layout:
    """How many positions of a module's input belong to each sample.

    Attributes:
        answers: Answer tokens: the input of the LM head.
        rows: Rows of the padded batch; or
        tokens: Tokens of the packed sequence.
    """

    answers: list[int]
    rows: list[int] | None = None
    tokens: list[int] | None = None

    def call(self, module: nn.Module, inputs: Tensor, gradient: Tensor, in_head: bool) -> Call:
        """Return a module's call with the samples along the first axis.

        Raises:
            InputError: if the samples cannot be told apart.
        """
        if in_head and inputs.shape[0] == sum(self.answers):
            return Call(module, inputs, gradient, self.answers)
        flat = inputs.dim() == 2 and inputs.is_floating_point()  # all tokens in a row: no samples
        if self.tokens is not None and not flat and inputs.shape[:2] == (1, sum(self.tokens)):
            return Call(module, inputs[0], gradient[0], self.tokens)
        if self.rows is not None and not flat and inputs.shape[0] == sum(self.rows):
            return Call(module, inputs, gradient, self.rows)
        raise _not_batchable(type(module).__name__, "all rows of a batch share one call")


@contextmanager
def sample_hooks(
    model: Policy, layout: Layout, sums: Sums, kernel: AddProducts | None = None
) -> Iterator[None]:
    """Add the per-sample gradients of the backward pass inside the block to ``sums``.

    Modules with trainable parameters get hooks, and weight gradients are switched off. Gradients
    are requested on the embeddings' output instead: they flow through all layers, and autograd
    skips the products that the hooks compute per sample. Fused LoRA layers report the gradients of
    A and B through a callback, so they get no hooks. InputError if the samples cannot be told
    apart, or a gradient did not arrive.
    """
    parameters = trainable(model)
    names = {id(p): name for name, p in parameters.items() if name in sums.total}
    head = {id(part) for part in model.get_output_embeddings().modules()}  # type: ignore[operator]
    owned = {
        id(module): {
            kind: names[id(p)]
            for kind, p in module.named_parameters(recurse=False)
            if id(p) in names
        }
        for module in model.modules()
    }  # now: FSDP2 gives a module other parameters while it computes
    collector = _Collector(layout, sums, kernel, names, head, owned)
    in_lora = {id(part) for layer in lora_layers(model) for part in layer.modules()}
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    handles = [embeddings.register_forward_hook(lambda _m, _i, out: _tracked(out))]
    handles += [
        module.register_forward_hook(collector.forward, with_kwargs=True)
        for module in model.modules()
        if id(module) not in in_lora and collector.parameters(module)
    ]
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        with fused(model, collector.lora_forward):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.requires_grad_(True)
    collector.check_complete()


def _tracked(out: Tensor) -> Tensor:
    return out if out.requires_grad else out.requires_grad_(True)


@dataclass
class _Use:
    """The calls of one parameter's modules in one pass; complete when all gradients arrived."""

    expected: int = 0
    calls: list[tuple[Call, str]] = field(default_factory=list)


@dataclass
class _Collector:
    """Collects (input, output gradient) pairs and adds each parameter once all have arrived."""

    layout: Layout
    sums: Sums
    kernel: AddProducts | None
    names: dict[int, str]  # id of each scored parameter -> its name
    head: set[int]  # ids of the modules that read answer tokens alone
    owned: dict[int, dict[str, str]]  # id of a module -> its scored parameters: kind -> name
    uses: dict[str, _Use] = field(default_factory=dict)  # name -> the calls that used it
    adding: bool = False  # a rule may call the module itself

    def parameters(self, module: nn.Module) -> dict[str, str]:
        """Return the scored parameters that a module owns: kind ("weight", ...) -> name."""
        return {} if self.adding else self.owned.get(id(module), {})

    def lora_forward(self, module: nn.Module) -> OnBackward:
        """Expect one call of a fused LoRA layer; return the callback for its gradients."""
        layer: Any = module
        a, b = (half[layer.active_adapters[0]] for half in (layer.lora_A, layer.lora_B))
        names_a, names_b = self.parameters(a), self.parameters(b)
        self._expect([*names_a.values(), *names_b.values()])

        def on_backward(halves: LoraGradients) -> None:
            self._take(a, names_a, halves.x, halves.gradient_a)
            self._take(b, names_b, halves.inner, halves.gradient_b)

        return on_backward

    def forward(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], out: Any
    ) -> None:
        """Keep the input; when the gradient of the output arrives, the pair is complete."""
        names = self.parameters(module)
        if not names:
            return  # a rule differentiates the module with stand-ins for its parameters
        if not isinstance(out, Tensor) or len(inputs) != 1 or named:
            raise _not_batchable(type(module).__name__, "it takes or returns more than one tensor")
        self._expect(names.values())
        _tracked(out)  # an embedding of positions: with its weights off, no gradient would come
        x = inputs[0].detach()
        out.register_hook(lambda gradient: self._take(module, names, x, gradient.detach()))

    def _expect(self, names: Iterable[str]) -> None:
        for name in names:
            self.uses.setdefault(name, _Use()).expected += 1

    def _take(
        self, module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor
    ) -> None:
        if not names:
            return
        call = self.layout.call(module, inputs, gradient, id(module) in self.head)
        for kind, name in names.items():
            use = self.uses[name]
            use.calls.append((call, kind))
            if len(use.calls) == use.expected:
                self.uses[name], self.adding = _Use(), True
                self._add(name, use.calls)
                self.adding = False

    def _add(self, name: str, calls: list[tuple[Call, str]]) -> None:
        """Add the per-sample gradients of a parameter from all of its calls, in chunks."""
        call, kind = calls[0]
        linear = type(call.module) is nn.Linear and kind == "weight"  # a subclass may compute more
        if self.kernel is not None and linear and len(calls) == 1:
            with self.sums.of(name) as sums:
                self.kernel(*call.flat(), *sums)
            return
        rules = [rule_for(*each) for each in calls]
        with self.sums.of(name) as sums:
            samples, size = len(call.rows), sums[1].numel() * 4
            chunk = max(1, CHUNK_BYTES // size)
            for first in range(0, samples, chunk):
                last = min(samples, first + chunk)
                gradients = rules[0](first, last)
                for other in rules[1:]:  # a weight used twice: its gradients add up before |.|
                    gradients = gradients + other(first, last)
                add_statistics(sums, gradients)

    def check_complete(self) -> None:
        """Refuse a pass in which a contribution was lost."""
        unused = [name for name in self.names.values() if name not in self.uses]
        if unused:
            raise _not_batchable(unused[0], "its module is never called: used in another way")
        incomplete = [name for name, use in self.uses.items() if use.calls]
        if incomplete:
            raise _not_batchable(incomplete[0], "not all of its gradients arrived")


def _not_batchable(where: str, reason: str) -> InputError:
    return InputError(
        f"importance.gradients: batched cannot separate the samples in {where} "
        f"({reason}). Set importance.gradients: loop."
    )
