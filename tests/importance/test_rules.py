"""Each rule against autograd on one module, sample by sample."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from grail.importance import rules
from grail.importance.rules import RULES, Call, rule_for

N, TRIALS, T, WIDTH = 3, 2, 5, 6


class Scaled(nn.Linear):
    """A subclass that computes more than its parent: the parent's rule would be wrong."""

    def forward(self, x):
        return 3.0 * super().forward(x)


class ScaledEmbedding(nn.Embedding):
    def forward(self, ids):
        return 5.0 * super().forward(ids)


MODULES = {
    "linear": lambda: nn.Linear(WIDTH, 4),
    "conv1d": lambda: Conv1D(4, WIDTH),
    "embedding": lambda: nn.Embedding(11, WIDTH),
    "embedding with padding": lambda: nn.Embedding(11, WIDTH, padding_idx=3),
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "llama norm": lambda: LlamaRMSNorm(WIDTH),
    "gemma norm": lambda: GemmaRMSNorm(WIDTH),
    "subclass of linear": lambda: Scaled(WIDTH, 4),
    "subclass of embedding": lambda: ScaledEmbedding(11, WIDTH),
}
BY_NAME = [(name, kind) for name, make in MODULES.items() for kind, _ in make().named_parameters()]


def made(name, rows):
    """A call of the module (input and a random output gradient) and gradients from autograd."""
    torch.manual_seed(0)
    module = MODULES[name]()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    shape = (sum(rows), T)
    given = (
        torch.randint(0, 11, shape)
        if isinstance(module, nn.Embedding)
        else torch.randn(*shape, WIDTH)
    )
    out = module(given)
    delta = torch.randn_like(out)
    return Call(module, given, delta, rows), [
        torch.autograd.grad((module(x) * d).sum(), list(module.parameters()), allow_unused=True)
        for x, d in zip(given.split(rows), delta.split(rows), strict=True)
    ]


@pytest.mark.parametrize(("name", "kind"), BY_NAME)
def test_rule_equals_autograd(name, kind):
    call, truth = made(name, [TRIALS] * N)
    index = [k for k, _ in call.module.named_parameters()].index(kind)
    expected = torch.stack([sample[index] for sample in truth])
    rule = rule_for(call, kind)
    assert torch.allclose(rule(0, N), expected, atol=1e-5)
    assert torch.allclose(rule(1, 3), expected[1:3], atol=1e-5)  # a chunk in the middle
    assert torch.allclose(rule(2, 3), expected[2:], atol=1e-5)
    assert rule(0, N).shape == (N, *getattr(call.module, kind).shape)


@pytest.mark.parametrize(("name", "kind"), BY_NAME)
def test_rule_on_samples_of_different_lengths(name, kind):
    """Answer tokens only (two axes), as they reach the LM head."""
    rows = [4, 1, 3]
    call, _ = made(name, rows)
    flat = Call(call.module, call.inputs[:, 0], call.gradient[:, 0], rows)
    found = rule_for(flat, kind)(0, N)
    parameter = getattr(call.module, kind)
    for n, (x, d) in enumerate(
        zip(flat.inputs.split(rows), flat.gradient.split(rows), strict=True)
    ):
        (expected,) = torch.autograd.grad((call.module(x) * d).sum(), parameter)
        assert torch.allclose(found[n], expected, atol=1e-5)


@pytest.mark.parametrize("width", [3, 9])
@pytest.mark.parametrize("rows", [[5, 4, 5], [1, 9, 2], [6]])
def test_samples_one_by_one_and_together_are_the_same(width, rows):
    """A CPU takes the one way, an accelerator mostly the other; wide to narrow and back."""
    torch.manual_seed(0)
    x, d = torch.randn(sum(rows), WIDTH).double(), torch.randn(sum(rows), width).double()
    expected = torch.stack(
        [torch.einsum("to,ti->oi", b, a) for a, b in zip(x.split(rows), d.split(rows), strict=True)]
    )
    for way in (rules._one_by_one, rules._together):
        found = way(x, d, rows)
        assert found.shape == (len(rows), width, WIDTH)
        assert torch.allclose(found, expected, rtol=1e-12)


def test_together_where_padding_is_little_and_launches_cost():
    rows = [5, 4, 5]
    cpu, accelerator = (torch.empty(sum(rows), WIDTH, device=name) for name in ("cpu", "meta"))
    assert rules._alone(cpu, rows)
    assert not rules._alone(accelerator, rows)
    assert rules._alone(torch.empty(12, WIDTH, device="meta"), [1, 1, 10])


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_gradients_are_summed_in_float32(kind):
    torch.manual_seed(0)
    module = nn.Linear(WIDTH, 4).bfloat16()
    x, d = torch.randn(2, T, WIDTH).bfloat16(), torch.randn(2, T, 4).bfloat16()
    found = rule_for(Call(module, x, d, [1, 1]), kind)(0, 2)
    exact = torch.einsum("nto,nti->noi", d.double(), x.double())
    exact = exact if kind == "weight" else d.double().sum(1)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, atol=1e-6)


def test_rules_are_chosen_by_exact_type():
    assert (nn.Linear, "weight") in RULES
    call, truth = made("subclass of linear", [1] * N)
    assert not torch.allclose(RULES[nn.Linear, "weight"](call, 0, N)[0], truth[0][0])
    assert torch.allclose(rule_for(call, "weight")(0, 1)[0], truth[0][0], atol=1e-5)


def test_padding_row_of_an_embedding_has_no_gradient():
    call, _ = made("embedding with padding", [TRIALS] * N)
    assert (call.inputs == 3).any()
    found = rule_for(call, "weight")(0, N)
    assert not found[:, 3].any()
    assert found.any()


def test_parts_follow_the_rows_of_each_sample():
    given = torch.arange(8).reshape(8, 1)
    call = Call(nn.Identity(), given, given * 10, [4, 1, 3])
    x, d, rows = call.part(1, 3)
    assert x.flatten().tolist() == [4, 5, 6, 7]
    assert d.flatten().tolist() == [40, 50, 60, 70]
    assert rows == [1, 3]


@pytest.mark.parametrize("axes", [(), (5,), (5, 2)])
def test_flat_is_token_by_token_with_the_samples_behind_each_other(axes):
    given, gradient = torch.randn(5, *axes, WIDTH), torch.randn(5, *axes, 4)
    x, d, lengths = Call(nn.Linear(WIDTH, 4), given, gradient, [4, 1]).flat()
    assert (x.shape[1], d.shape[1]) == (WIDTH, 4)
    for n, (first, last) in enumerate(((0, 4), (4, 5))):
        assert torch.equal(x.split(lengths)[n], given[first:last].reshape(-1, WIDTH))
        assert torch.equal(d.split(lengths)[n], gradient[first:last].reshape(-1, 4))
