"""One weight removed, renamed or added, in every kind of file: an error names it."""

import json

import pytest
import torch
from ggufs import tensors_of, write_gguf
from safetensors.torch import load_file, save_file

from grail.config.run import Lora, Model
from grail.errors import InputError
from grail.model.complete import SHOWN, refuse_difference
from grail.model.load import load_model

EXTRA = "model.layers.0.self_attn.q_proj.scale"


def load(folder, adapter=None, lora=None):
    settings = Model(name=str(folder), dtype="float32", attention="eager", lora=lora)
    return load_model(settings, None if adapter is None else str(adapter), 0)


def written(folder, weights, kind):
    """Write weights as one file or in two shards, as safetensors or as torch's own."""
    for file in [*folder.glob("*.safetensors*"), *folder.glob("*.bin*")]:
        file.unlink()
    stem, end = ("model", "safetensors") if "safetensors" in kind else ("pytorch_model", "bin")
    save = save_file if end == "safetensors" else torch.save
    metadata = ({"format": "pt"},) if end == "safetensors" else ()
    if not kind.startswith("sharded"):
        save(weights, folder / f"{stem}.{end}", *metadata)
        return
    names, index = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"{stem}-0000{number}-of-00002.{end}"
        save({name: weights[name] for name in part}, folder / shard, *metadata)
        index |= dict.fromkeys(part, shard)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(content))


def changes(weights, extra=EXTRA):
    """Yield changed weights, and the name that an error must hold."""
    for name in weights:
        others = {key: value for key, value in weights.items() if key != name}
        yield others, name
        yield others | {f"{name}.old": weights[name]}, name
    yield weights | {extra: next(iter(weights.values())).clone()}, extra


@pytest.mark.parametrize("kind", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
def test_a_model_of_which_one_weight_is_not_as_it_was(kind, tiny_model, tmp_path):
    model = tiny_model(lora=False, tied=False)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    written(tmp_path, weights, kind)
    found = load(tmp_path).state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    for changed, name in list(changes(weights))[:: 3 if "sharded" in kind else 1]:  # 3: both ways
        written(tmp_path, changed, kind)
        with pytest.raises(InputError, match=r"^model\.name: ") as error:
            load(tmp_path)
        assert name in str(error.value)


def test_a_tied_model_without_its_embedding(tiny_model, tmp_path):
    tiny_model("gemma", lora=False, tied=True).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.embed_tokens.weight"]
    written(tmp_path, weights, "safetensors")
    with pytest.raises(InputError, match=r"lacks .*(embed_tokens|lm_head)\.weight"):
        load(tmp_path)


@pytest.mark.parametrize("change", ["a shard is gone", "a shard holds less than the index says"])
def test_shards_that_are_not_all_there(change, tiny_model, tmp_path):
    model = tiny_model(lora=False, tied=False)
    model.save_pretrained(tmp_path)
    written(tmp_path, dict(model.state_dict()), "sharded safetensors")
    shard = tmp_path / "model-00002-of-00002.safetensors"
    if change == "a shard is gone":
        shard.unlink()
    else:
        save_file(dict(list(load_file(shard).items())[1:]), shard, {"format": "pt"})
    with pytest.raises(InputError, match=r"^model\.name: "):
        load(tmp_path)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_configuration_of_other_layers_than_the_file_has(layers, tiny_model, tmp_path):
    tiny_model(lora=False).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": layers}))
    with pytest.raises(InputError, match=rf"{'holds' if layers == 1 else 'lacks'} 9 weights"):
        load(tmp_path)


@pytest.mark.parametrize("change", ["weight", "configuration"])
def test_weights_of_another_shape_are_named(change, tiny_model, tmp_path):
    model = tiny_model(lora=False, tied=False)
    model.save_pretrained(tmp_path)
    if change == "weight":
        weights = dict(model.state_dict())
        written(tmp_path, weights | {"model.norm.weight": torch.ones(25)}, "sharded safetensors")
    else:
        settings = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(settings | {"intermediate_size": 8}))
    name = {"weight": r"1 weight \(model\.norm", "configuration": r"6 weights \(.*down_proj"}
    with pytest.raises(InputError, match=rf"{name[change]}\.weight.*\) of another shape"):
        load(tmp_path)


# -- adapters ------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tiny_model, tiny_model_folder, tmp_path):
    """A folder with a trained adapter for the tiny model."""
    model = load(tiny_model_folder, lora=Lora(r=2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("lora", [Lora(), None])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_adapter_of_which_one_weight_is_not_as_it_was(kind, lora, adapter, tiny_model_folder):
    whole = load_file(adapter / "adapter_model.safetensors")
    weights = {name: value for name, value in whole.items() if "layers.1" in name or "_A" in name}
    weights = dict(list(weights.items())[::4])
    extra = "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight"
    for changed, name in changes(weights, extra):
        state = {n: v for n, v in whole.items() if n not in weights} | changed
        (adapter / "adapter_model.safetensors").unlink(missing_ok=True)
        if kind == "bin":
            torch.save(state, adapter / "adapter_model.bin")
        else:
            save_file(state, adapter / "adapter_model.safetensors")
        with pytest.raises(InputError, match=r"^teach\.adapter or model\.name: ") as error:
            load(tiny_model_folder, adapter, lora)
        assert name in str(error.value)


def test_an_adapter_under_other_names_or_for_fewer_layers(adapter, tiny_model_folder):
    whole = load_file(adapter / "adapter_model.safetensors")
    inner = ("model.layers", "model.language_model.layers")
    renamed = {name.replace(*inner): value for name, value in whole.items()}
    half = {n: v for n, v in whole.items() if "layers.0" in n}
    for state, counts in ((renamed, "lacks 28 .*holds 28"), (half, "lacks 14 weights")):
        save_file(state, adapter / "adapter_model.safetensors")
        with pytest.raises(InputError, match=counts):
            load(tiny_model_folder, adapter, Lora())


@pytest.mark.parametrize("unread", [{"new_rule": True}, {"new_rule": None}])
def test_an_adapter_whose_settings_would_be_ignored(unread, adapter, tiny_model_folder):
    """PEFT warns of a key that it does not know, and goes on; an empty one changes nothing."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | unread))
    if unread["new_rule"]:
        with pytest.raises(InputError, match="sets new_rule, which the installed PEFT"):
            load(tiny_model_folder, adapter, Lora())
    else:
        with pytest.warns(UserWarning, match="new_rule"):
            load(tiny_model_folder, adapter, Lora())


def test_an_adapter_without_weights_or_of_no_known_kind(adapter, tiny_model_folder):
    file, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"peft_type": "ODD"}))
    with pytest.raises(InputError, match="is of the kind ODD"):
        load(tiny_model_folder, adapter, Lora())
    weights.unlink()
    with pytest.raises(InputError, match="has no weights"):
        load(tiny_model_folder, adapter, Lora())


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": 2'])
def test_damaged_settings_of_generation_are_refused(content, tiny_model, tmp_path):
    tiny_model(lora=False).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(InputError, match=r"generation_config\.json is not settings"):
        load(tmp_path)


@pytest.mark.parametrize("lora", [Lora(), None])
def test_an_adapter_of_another_rank_than_its_configuration_says(lora, adapter, tiny_model_folder):
    whole = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in whole if "lora_A" in name)
    save_file(whole | {name: torch.ones(3, 24)}, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match=name.removesuffix(".weight")):
        load(tiny_model_folder, adapter, lora)


@pytest.mark.parametrize("changed", [False, True])
def test_an_adapter_that_repeats_the_embedding_of_its_base(changed, adapter, tiny_model_folder):
    """PEFT saves embeddings along in some cases; other ones would be left out of the result."""
    whole = load_file(adapter / "adapter_model.safetensors")
    words = load_file(tiny_model_folder / "model.safetensors")["model.embed_tokens.weight"]
    name = "base_model.model.model.embed_tokens.weight"
    save_file(whole | {name: words + changed}, adapter / "adapter_model.safetensors")
    if changed:
        with pytest.raises(InputError, match=r"holds 1 weight \(.*embed_tokens\.weight\) too many"):
            load(tiny_model_folder, adapter, Lora())
    else:
        assert load(tiny_model_folder, adapter, Lora()) is not None


# -- GGUF ----------------------------------------------------------------------------------------


@pytest.fixture
def gguf(tiny_model, tiny_tokenizer, tmp_path, monkeypatch):
    """A function that writes a GGUF file, and the tensors of a tiny model."""
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path / "cache"))
    tokenizer = tiny_tokenizer()
    model = tiny_model(lora=False, tied=False, vocabulary=len(tokenizer) + 1)

    def write(tensors, **more):
        return write_gguf(tmp_path / "tiny.gguf", model, tokenizer, tensors, **more)

    return write, tensors_of(model), model


def test_a_gguf_file_holds_the_model(gguf):
    write, tensors, model = gguf
    found = load(write(tensors)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_a_gguf_file_of_which_one_tensor_is_not_as_it_was(gguf, tmp_path):
    write, tensors, model = gguf
    names = dict(zip(tensors, model.state_dict(), strict=True))
    del names["output.weight"]  # a file without it is, in this format, one of a tied model
    for number, (ours, theirs) in enumerate(names.items()):
        changed = {name: value for name, value in tensors.items() if name != ours}
        if number % 2:
            changed[f"old.{ours}"] = tensors[ours]
        with pytest.raises(InputError, match=r"^model\.name: .*tiny\.gguf lacks 1") as error:
            load(write(changed))
        assert theirs in str(error.value)
    for extra in ("blk.0.attn_q.scale", "rope_freqs.weight", "blk.7.attn_q.weight"):
        with pytest.raises(InputError, match=r"^model\.name: .*tiny\.gguf holds 1 ") as error:
            load(write(tensors | {extra: tensors["output_norm.weight"]}))
        assert extra in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_part_of_a_gguf_file_is_refused(gguf):
    write, tensors, _ = gguf
    with pytest.raises(InputError, match=r"one of 3 parts of a model\. Join them"):
        load(write(tensors, parts=3))
    assert load(write(tensors, parts=1)) is not None


# -- the message ---------------------------------------------------------------------------------


def test_the_message_names_what_differs():
    refuse_difference("it", (), ())
    with pytest.raises(InputError, match=r"^it lacks 2 weights \(a, b\)\. "):
        refuse_difference("it", ["b", "a"], ())
    with pytest.raises(InputError, match=r"^it lacks 1 weight \(a\) and holds 1 weight \(b\) too"):
        refuse_difference("it", ["a"], ["b"])
    with pytest.raises(InputError, match=rf"holds {SHOWN + 1} weights \(0, .*, \.\.\.\) too many"):
        refuse_difference("it", (), map(str, range(SHOWN + 1)))
