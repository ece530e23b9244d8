"""Weights that come back bit for bit, or are named where they are missing."""

import pytest
from safetensors.torch import load_file, save_file
from weights import same, scramble, state

from grail.errors import InputError
from grail.model.forward import trainable
from grail.model.save import load_weights, save_weights

# -- weights on disk -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "lora", "tied"),
    [("llama", True, None), ("gpt2", True, None), ("gemma", True, None)]
    + [(f, False, t) for f in ("llama", "gpt_neox", "gpt2") for t in (True, False)],
)
def test_weights_round_trip_bit_for_bit(family, lora, tied, tiny_model, tmp_path):
    model = tiny_model(family, lora=lora, tied=tied)
    kept = state(model)
    save_weights(model, tmp_path)
    assert not [p.name for p in tmp_path.iterdir() if p.suffix in (".bin", ".pt", ".md")]
    scramble(model)
    assert not same(state(model), kept)
    load_weights(model, tmp_path)
    assert same(state(model), kept)
    other = tiny_model(family, lora=lora, tied=tied, seed=0)
    scramble(other)
    load_weights(other, tmp_path)
    assert same(state(other), kept)
    if tied:
        head, words = other.get_output_embeddings(), other.get_input_embeddings()
        assert head.weight is words.weight


def test_a_saved_adapter_holds_the_adapter_only(tiny_model, tmp_path):
    model = tiny_model()
    save_weights(model, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == len(trainable(model))
    assert sum(v.numel() for v in saved.values()) == sum(
        p.numel() for p in trainable(model).values()
    )


def test_full_weights_that_are_not_all_there(tiny_model, tmp_path):
    model = tiny_model(lora=False)
    save_weights(model, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    saved.pop("model.norm.weight")
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"lacks 1 weights, for example model\.norm\.weight"):
        load_weights(model, tmp_path)


def test_an_adapter_that_is_not_all_there(tiny_model, tmp_path):
    model = tiny_model()
    save_weights(model, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    saved.pop(next(iter(saved)))
    save_file(saved, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="lacks 1 weights"):
        load_weights(model, tmp_path)
