"""The fused LoRA layer against PEFT's own, and where it must step aside."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import nn

from grail.data.batches import collate
from grail.model.forward import answer_logits, trainable
from grail.model.fused_lora import LoraCall, LoraLinear, fused, lora_layers


def read(model, batch):
    return answer_logits(model, batch)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "gpt_neox"])
def test_output_and_gradients_are_those_of_peft(family, tiny_model, tiny_rows):
    """Qwen2 and GPT-NeoX have biases on base layers."""
    model, batch = tiny_model(family), collate(tiny_rows(4), 0)
    found = {}
    for way in ("peft", "fused"):
        model.zero_grad()
        if way == "fused":
            with fused(model):
                logits = read(model, batch)
        else:
            logits = read(model, batch)
        logits.float().logsumexp(-1).sum().backward()
        found[way] = (logits, {n: p.grad.clone() for n, p in trainable(model).items()})
    assert lora_layers(model)
    assert torch.allclose(found["peft"][0], found["fused"][0], atol=2e-5)
    for name, gradient in found["peft"][1].items():
        assert gradient.dtype == found["fused"][1][name].dtype == torch.float32
        scale = max(1.0, float(gradient.abs().max()))
        assert torch.allclose(gradient, found["fused"][1][name], atol=3e-5 * scale), name


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    base = nn.Linear(5, 4).double().requires_grad_(False)
    x, a, b = torch.randn(2, 3, 5), torch.randn(2, 5), torch.randn(4, 2)
    given = [t.double().requires_grad_() for t in (x, a, b)]

    def layer(x, a, b):
        return LoraLinear.apply(x, a, b, LoraCall(base, 1.7))

    out = layer(*given)
    assert torch.allclose(out, base(given[0]) + 1.7 * given[0] @ given[1].T @ given[2].T)
    weight = torch.randn(out.shape, dtype=torch.float64)
    found = torch.autograd.grad((out * weight).sum(), given)
    for which, tensor in enumerate(given):
        step = torch.randn(tensor.shape, dtype=torch.float64) * 1e-6
        moved = [t + step if i == which else t for i, t in enumerate(given)]
        change = ((layer(*moved) - out) * weight).sum()
        assert torch.allclose(change, (found[which] * step).sum(), rtol=1e-4)


@pytest.mark.parametrize("needs", [True, False])
def test_the_halves_that_a_layer_tells_of_make_its_gradients(needs, tiny_model):
    model = tiny_model()
    layer, name = next(iter(lora_layers(model).items()))
    x, told = torch.randn(2, 3, layer.in_features, requires_grad=needs), []
    weight = torch.randn(2, 3, layer.out_features)
    with fused(model, lambda module: told.append if module is layer else pytest.fail("another")):
        out = layer(x)
        assert not told
        (out * weight).sum().backward()
    (halves,) = told
    for given, gradient, part in (
        (halves.x, halves.gradient_a, layer.lora_A[name].weight),
        (halves.inner, halves.gradient_b, layer.lora_B[name].weight),
    ):
        found = gradient.flatten(0, 1).T @ given.flatten(0, 1)
        assert torch.allclose(found, part.grad, rtol=1e-4, atol=1e-6)
        assert given.shape[:2] == gradient.shape[:2] == (2, 3)


def test_half_precision_differs_from_float32_by_its_rounding(tiny_model, tiny_rows):
    model, batch = tiny_model(), collate(tiny_rows(4), 0)
    exact = read(model, batch)
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    with fused(model):
        half = read(model, batch)
    half.float().logsumexp(-1).sum().backward()
    assert half.dtype == torch.bfloat16
    assert all(p.grad.dtype == torch.float32 for p in trainable(model).values())
    peft = read(model, batch).float()
    assert (half.float() - exact).norm() < 1.5 * (peft - exact).norm()


def test_layers_are_peft_s_again_afterwards(tiny_model):
    model = tiny_model()

    def fail():
        with fused(model):
            assert any("forward" in vars(m) for m in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any("forward" in vars(m) for m in model.modules())


def test_a_layer_with_a_forward_of_its_own_keeps_it(tiny_model, tiny_rows):
    """Such as a hook of accelerate: it runs inside of the block, and is there after it."""
    model, batch, calls = tiny_model(), collate(tiny_rows(2), 0), []
    hooked, other = list(lora_layers(model))[:2]
    inner = hooked.forward

    def forward(x):
        calls.append(1)
        return inner(x)

    hooked.forward = forward
    assert hooked not in lora_layers(model)
    expected = read(model, batch)
    with fused(model):
        assert torch.allclose(read(model, batch), expected, atol=2e-5)
        assert "forward" in vars(other)
    assert hooked.forward is forward
    assert len(calls) == 2
    assert "forward" not in vars(other)


def test_blocks_may_be_nested_and_the_outer_one_holds(tiny_model, tiny_rows):
    model, batch, seen = tiny_model(), collate(tiny_rows(2), 0), []
    layers = lora_layers(model)
    with fused(model, lambda _: seen.append):
        outer = {layer: layer.forward for layer in layers}
        with fused(model):
            assert all(layer.forward is outer[layer] for layer in layers)
        assert all(layer.forward is outer[layer] for layer in layers)
        read(model, batch).sum().backward()
    assert len(seen) == len(layers)
    assert not any("forward" in vars(layer) for layer in layers)


def with_adapter(tiny_model, **settings):
    inner = tiny_model("qwen2", lora=False)
    chosen = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return get_peft_model(inner, LoraConfig(**(chosen | settings)))


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}]
)
def test_other_kinds_of_adapters_stay_peft_s(settings, tiny_model):
    assert lora_layers(with_adapter(tiny_model, **settings).train()) == {}


def test_dropout_that_is_off_does_not_matter(tiny_model):
    assert lora_layers(with_adapter(tiny_model, lora_dropout=0.5).eval())


def test_merged_disabled_hooked_and_several_adapters_stay_peft_s(tiny_model):
    model = with_adapter(tiny_model)
    layers = [m for m in model.modules() if type(m) is Linear]
    assert set(lora_layers(model)) == set(layers)
    model.merge_adapter()
    assert lora_layers(model) == {}
    model.unmerge_adapter()
    with model.disable_adapter():
        assert lora_layers(model) == {}
    hook = layers[0].lora_A["default"].register_forward_hook(lambda *_: None)
    assert set(lora_layers(model)) == set(layers[1:])
    hook.remove()
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])
    assert lora_layers(model) == {}


def test_a_base_layer_that_is_trained_too_stays_peft_s(tiny_model):
    model = with_adapter(tiny_model)
    layers = [m for m in model.modules() if type(m) is Linear]
    layers[0].base_layer.weight.requires_grad_(True)
    assert set(lora_layers(model)) == set(layers[1:])


def test_trained_biases_of_base_layers_get_their_gradient(tiny_model):
    model = with_adapter(tiny_model, bias="lora_only")
    with_bias = {m for m in model.modules() if type(m) is Linear and m.base_layer.bias is not None}
    assert with_bias
    assert not with_bias & set(lora_layers(model))
