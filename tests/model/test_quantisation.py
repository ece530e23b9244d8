"""A base in few bits: what it stores, what it computes, and that nothing of it changes."""

import pytest
import torch

from grail.audit.attacks.attackers import check_attackers
from grail.audit.attacks.compress import compressed, linear_layers
from grail.config.run import Lora, Model, parse_config
from grail.data.batches import collate
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.errors import InputError
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores
from grail.model import packing, quantisation
from grail.model.forward import answer_logits, trainable
from grail.model.load import load_model
from grail.model.quantisation import is_quantised, plain_weight
from grail.model.vocabulary import in_full, plain_vectors

pytest.importorskip("bitsandbytes")
KINDS = ("nf4", "int8")


def loaded(folder, kind, dtype="float32"):
    model = load_model(Model(name=str(folder), dtype=dtype, quantise=kind, lora=Lora(r=2)), None, 0)
    with torch.no_grad():
        for number, parameter in enumerate(trainable(model).values()):
            parameter.copy_(torch.randn(parameter.shape, generator=_generator(number)) * 0.1)
    return model


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def widened(model, folder):
    """Return the model of ``folder`` with the weights that ``model`` computes with, adapter too."""
    twin = load_model(Model(name=str(folder), dtype="float32", lora=Lora(r=2)), None, 0)
    layers = linear_layers(model)
    with torch.no_grad():
        for name, layer in linear_layers(twin).items():
            layer.weight.copy_(plain_weight(layers[name]))
        for part in ("get_input_embeddings", "get_output_embeddings"):
            getattr(twin, part)().weight.copy_(plain_vectors(getattr(model, part)()))
        for name, parameter in trainable(twin).items():
            parameter.copy_(trainable(model)[name])
    return twin


def logits(model, rows):
    with torch.no_grad():
        return answer_logits(model.eval(), collate(rows, 0))


@pytest.fixture(scope="module")
def models(tiny_model_folder):
    return {kind: loaded(tiny_model_folder, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_linear_weights_and_the_vocabulary_are_stored_in_few_bits(models, kind, tiny_model_folder):
    model, full = models[kind], load_model(Model(name=str(tiny_model_folder), lora=None), None, 0)
    layers, wanted = linear_layers(model), linear_layers(full)
    assert layers
    for layer, plain in zip(layers.values(), wanted.values(), strict=True):
        assert is_quantised(layer)
        bits = 8 * layer.weight.numel() * layer.weight.element_size() / plain.weight.numel()
        assert bits == {"nf4": 4, "int8": 8}[kind]
        difference = (plain_weight(layer) - plain.weight).abs()
        if kind == "int8":  # half a step of each row's own grid, and rounding to 16 bits before it
            largest = plain.weight.abs().amax(1, True)
            assert (difference <= largest * (0.5 / 127 + 2**-10)).all()
        else:  # half of the widest gap of NF4's 16 values, and what doubly quantised scales lose
            assert (difference <= plain.weight.abs().max() * 0.16).all()
        assert difference.any()
    assert in_full(model) == []
    kinds = {p.dtype for name, p in model.named_parameters() if ".lora_" not in name}
    assert kinds == {torch.int8, torch.float32} | ({torch.uint8} if kind == "nf4" else set())


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_its_plain_weights_do(models, kind, tiny_rows, tiny_model_folder):
    model, rows = models[kind], tiny_rows(5)
    assert packing.packs(model, rows), "rows are packed as on other models"
    torch.testing.assert_close(logits(model, rows), logits(widened(model, tiny_model_folder), rows))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_plain_weights(models, kind, tiny_rows, tiny_model_folder):
    labels = RandomLabels(ordinary_tokens(96, (0, 1, 2)), "inputs_and_targets", 0)

    def scores(model, gradients):
        return Scorer(model, labels, 0, batch_tokens=10**6, gradients=gradients).score(tiny_rows(4))

    batched = scores(models[kind], "batched")
    assert compare_scores(batched, scores(models[kind], "loop")).worst < 1e-4
    assert (
        compare_scores(batched, scores(widened(models[kind], tiny_model_folder), "loop")).worst
        < 1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_pass_changes_what_is_stored(tiny_model_folder, kind, dtype, tiny_rows):
    model = loaded(tiny_model_folder, kind, dtype)
    before = {n: (p.shape, p.detach().clone()) for n, p in model.named_parameters()}
    logits(model, tiny_rows(3))
    model.train()
    answer_logits(model, collate(tiny_rows(3), 0)).float().square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in trainable(model).values())
    for name, parameter in model.named_parameters():
        shape, value = before[name]
        assert parameter.shape == shape
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("kind", KINDS)
def test_compression_widens_the_base_for_its_time(models, kind, tiny_rows, tiny_model_folder):
    model, rows = models[kind], tiny_rows(4)
    said = logits(model, rows)
    with compressed(model, None):
        torch.testing.assert_close(logits(model, rows), said)
    twin = widened(model, tiny_model_folder).merge_and_unload()
    for layer in linear_layers(twin).values():
        layer.weight.data *= 0.5
    with compressed(model, lambda weight: weight * 0.5):
        torch.testing.assert_close(logits(model, rows), logits(twin, rows))
        assert not torch.allclose(logits(model, rows), said, atol=1e-2)
    assert torch.equal(logits(model, rows), said)


def test_what_few_bits_cannot_do_is_refused(monkeypatch, tiny_model_folder):
    with pytest.raises(ValueError, match="quantise: nf4 weights cannot be trained; use an adapter"):
        Model(quantise="nf4", lora=None)
    rows = {"train": "embedded"}
    config = parse_config(
        {
            "model": {"quantise": "int8"},
            "domains": {"privacy": {"unlearn": rows, "retain": rows}},
            "audit": {"relearn": {"train": ["adapter", "all"]}},
            "output": "run",
        }
    )
    with pytest.raises(InputError, match="all cannot train int8 weights"):
        check_attackers(config)
    monkeypatch.setattr(quantisation, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'grail-unlearning\[quantise\]'"):
        loaded(tiny_model_folder, "nf4")
