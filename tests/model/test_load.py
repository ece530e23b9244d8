"""Loading, logits, weights on disk: each against a slower or older way."""

import json
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig
from weights import same, scramble, state

from grail.config.run import Lora, Model
from grail.errors import InputError
from grail.model import load as module
from grail.model import packing
from grail.model.forward import is_adapter, trainable
from grail.model.load import load_model, load_tokenizer
from grail.model.save import save_weights


def named(folder, **given):
    return Model(name=str(folder), dtype=given.pop("dtype", "float32"), **given)


# -- loading -------------------------------------------------------------------------------------


@pytest.fixture
def adapter_folder(tiny_model_folder, tmp_path):
    """A trained adapter, as PEFT writes it, that names its base."""
    model = load_model(named(tiny_model_folder, lora=Lora(r=2)), None, 0)
    scramble(model)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_load_a_folder_with_a_fresh_adapter(tiny_model_folder):
    model = load_model(named(tiny_model_folder, lora=Lora(r=3, alpha=6)), None, 0)
    assert is_adapter(model)
    assert all("lora_" in name for name in trainable(model))
    assert len(trainable(model)) == 2 * 2 * 7
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="eager")
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model.eval()(input_ids=ids).logits, base(input_ids=ids).logits)


def test_load_all_weights(tiny_model_folder):
    model = load_model(named(tiny_model_folder, lora=None), None, 0)
    assert not is_adapter(model)
    assert set(trainable(model)) == {name for name, _ in model.named_parameters()}
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    assert same(state(model), state(base))


@pytest.mark.parametrize("way", ["model.name", "teach.adapter"])
def test_load_a_trained_adapter(way, adapter_folder, tiny_model_folder):
    saved = load_file(adapter_folder / "adapter_model.safetensors")
    if way == "model.name":
        model = load_model(named(adapter_folder), None, 0)
    else:
        model = load_model(named(tiny_model_folder), str(adapter_folder), 0)
    assert len(trainable(model)) == len(saved)
    for name, parameter in trainable(model).items():
        assert torch.equal(parameter, saved[name.replace(".default", "")])


@pytest.mark.parametrize("way", ["model.name", "teach.adapter"])
def test_an_adapter_is_merged_where_all_weights_are_trained(way, adapter_folder, tiny_model_folder):
    if way == "model.name":
        model = load_model(named(adapter_folder, lora=None), None, 0)
    else:
        model = load_model(named(tiny_model_folder, lora=None), str(adapter_folder), 0)
    assert not is_adapter(model)
    assert all(p.requires_grad for p in model.parameters())
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    both = PeftModel.from_pretrained(base, str(adapter_folder)).eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    expected = both(input_ids=ids).logits
    assert torch.allclose(model.eval()(input_ids=ids).logits, expected, atol=1e-4)
    with both.disable_adapter():
        assert not torch.allclose(both(input_ids=ids).logits, expected, atol=1e-2)


def test_same_seed_same_adapter(tiny_model_folder):
    one, again, other = (load_model(named(tiny_model_folder), None, seed) for seed in (0, 0, 1))
    assert same(state(one), state(again))
    assert not same(state(one), state(other))


@pytest.mark.parametrize("kind", ["fresh", "given", "full"])
def test_loading_leaves_the_global_generator_alone(kind, tiny_model_folder, adapter_folder):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    settings = named(tiny_model_folder, lora=None if kind == "full" else Lora())
    load_model(settings, str(adapter_folder) if kind == "given" else None, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("dtype", "lora", "capable", "expected"),
    [
        ("auto", None, True, torch.float32),
        ("auto", Lora(), True, torch.bfloat16),
        ("auto", Lora(), False, torch.float32),
        ("bfloat16", None, False, torch.bfloat16),
        ("float32", Lora(), True, torch.float32),
    ],
)
def test_dtype(dtype, lora, capable, expected, tiny_model_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable})
    model = load_model(named(tiny_model_folder, dtype=dtype, lora=lora), None, 0)
    assert {p.dtype for n, p in model.named_parameters() if "lora_" not in n} == {expected}
    if lora:
        assert {p.dtype for p in trainable(model).values()} == {torch.float32}


@pytest.mark.parametrize(("bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_dtype_on_an_accelerator(bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert module.dtype_of(Model()) == expected
    assert module.dtype_of(Model(lora=None)) == torch.float32


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize(
    ("given", "expected"),
    [("auto", packing.NAME), ("packed", packing.NAME), ("eager", "eager"), ("sdpa", "sdpa")],
)
def test_attention(given, expected, cuda, tiny_model_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    model = load_model(named(tiny_model_folder, attention=given, lora=None), None, 0)
    if (given, cuda) == ("auto", True):
        expected = "sdpa"
    assert model.config._attn_implementation == expected


def test_a_model_that_cannot_pack_is_read_padded_or_refused(tiny_model_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(packing, "same_logits", lambda *_: False)
    model = load_model(named(tiny_model_folder, lora=None), None, 0)
    assert model.config._attn_implementation == "eager"
    with pytest.raises(InputError, match=r"model\.attention: .* computes other logits"):
        load_model(named(tiny_model_folder, attention="packed", lora=None), None, 0)


def test_an_unknown_hub_id_is_an_input_error():
    settings = Model(name="nobody/no-such-model")
    for call in (lambda: load_model(settings, None, 0), lambda: load_tokenizer(settings)):
        with pytest.raises(InputError, match=r"model\.name: 'nobody/no-such-model'") as error:
            call()
        assert "\n" not in str(error.value)


def test_wrong_target_modules_are_an_input_error(tiny_model_folder):
    settings = named(tiny_model_folder, lora=Lora(target_modules=["no_such_layer"]))
    with pytest.raises(InputError, match=r"model\.lora\.target_modules: .*no_such_layer"):
        load_model(settings, None, 0)


@pytest.mark.parametrize("lora", [Lora(), None])
def test_an_adapter_that_is_not_there(lora, tiny_model_folder, tmp_path):
    with pytest.raises(InputError, match=r"teach\.adapter: .* is not a PEFT adapter folder"):
        load_model(named(tiny_model_folder, lora=lora), str(tmp_path), 0)


@pytest.mark.parametrize("lora", [Lora(), None])
def test_an_adapter_of_another_model(lora, tiny_model_folder, tiny_model, tmp_path):
    tiny_model(hidden_size=36).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"teach\.adapter"):
        load_model(named(tiny_model_folder, lora=lora), str(tmp_path), 0)


def test_damaged_weights_are_an_input_error(tiny_model_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"model\.name: .* cannot be loaded"):
        load_model(named(folder), None, 0)


@pytest.mark.parametrize("way", ["fresh", "given"])
def test_an_adapter_names_the_base_that_it_is_on(way, adapter_folder, tiny_model_folder, tmp_path):
    """Whatever it named before, and whichever revision of that."""
    settings = adapter_folder / "adapter_config.json"
    values = json.loads(settings.read_text()) | {"base_model_name_or_path": "owner/other"}
    settings.write_text(json.dumps(values | {"revision": "main"}))
    start = str(adapter_folder) if way == "given" else None
    save_weights(load_model(named(tiny_model_folder), start, 0), tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(tiny_model_folder)
    assert written["revision"] is None


def put_on(folder, settings, out):
    """Save an adapter with values far from its initial ones."""
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings)
    scramble(adapted)
    adapted.save_pretrained(out, save_embedding_layers=False)
    return out


@pytest.mark.parametrize("lora", [Lora(), None])
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_on_a_weight_that_two_layers_share(target, lora, tiny_model, tmp_path):
    tiny_model("gemma", lora=False, tied=True).save_pretrained(tmp_path / "base")
    how = LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of it
        adapter = put_on(tmp_path / "base", how, tmp_path / "adapter")
        with pytest.raises(InputError, match=rf"adapts .*{target}, whose weight embedding and LM"):
            load_model(named(tmp_path / "base", lora=lora), str(adapter), 0)
        with pytest.raises(InputError, match=rf"model\.lora\.target_modules: adapts .*{target}"):
            load_model(named(tmp_path / "base", lora=Lora(target_modules=[target])), None, 0)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head", "q_proj"])
def test_an_adapter_on_a_weight_of_its_own_is_merged(target, tiny_model_folder, tmp_path):
    how = LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM")
    adapter = put_on(tiny_model_folder, how, tmp_path)
    merged = load_model(named(tiny_model_folder, lora=None), str(adapter), 0)
    kept = load_model(named(tiny_model_folder), str(adapter), 0)
    ids = torch.tensor([[3, 4, 5, 6]])
    expected = kept.eval()(input_ids=ids).logits
    assert torch.allclose(merged.eval()(input_ids=ids).logits, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["bias", "head of its own on a tied model"])
def test_an_adapter_that_cannot_be_merged(kind, tiny_model, tmp_path):
    tied = kind != "bias"
    tiny_model("gemma" if tied else "llama", lora=False, tied=tied).save_pretrained(tmp_path / "m")
    special = {"modules_to_save": ["lm_head"]} if tied else {"lora_bias": True}
    how = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **special)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice for merging
        adapter = put_on(tmp_path / "m", how, tmp_path / "a")
        with pytest.raises(InputError, match=rf"{adapter} \(LORA\) cannot be merged"):
            load_model(named(tmp_path / "m", lora=None), str(adapter), 0)
        assert is_adapter(load_model(named(tmp_path / "m"), str(adapter), 0))


@pytest.mark.parametrize("lora", [Lora(), None])
def test_an_adapter_that_adds_tokens_of_its_own_is_refused(lora, tiny_model_folder, tmp_path):
    how = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    get_peft_model(base, how).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is of the kind PROMPT_TUNING"):
        load_model(named(tiny_model_folder, lora=lora), str(tmp_path), 0)


def test_one_wrong_target_module_among_right_ones(tiny_model_folder):
    """PEFT leaves it out without a word."""
    settings = named(tiny_model_folder, lora=Lora(target_modules=["q_proj", "qproj"]))
    with pytest.raises(InputError, match=r"model\.lora\.target_modules: the model has no qproj"):
        load_model(settings, None, 0)


def test_an_encoder_is_refused(tmp_path):
    config = {"vocab_size": 96, "hidden_size": 24, "intermediate_size": 40}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(BertConfig(**config)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="BertLMHeadModel reads the tokens it must predict"):
        load_model(named(tmp_path), None, 0)


# -- tokenizers ----------------------------------------------------------------------------------


def test_load_tokenizer(tiny_model_folder, adapter_folder):
    settings = named(tiny_model_folder)
    found = load_tokenizer(settings)
    assert (
        found("a b")["input_ids"]
        == AutoTokenizer.from_pretrained(tiny_model_folder)("a b").input_ids
    )
    assert found.decode(found("any ASCII ~ text!", add_special_tokens=False)["input_ids"]) == (
        "any ASCII ~ text!"
    )
    assert load_tokenizer(named(adapter_folder)).get_vocab() == found.get_vocab()


@pytest.mark.parametrize("way", ["model.name", "teach.adapter"])
@pytest.mark.parametrize("what", ["tokenizer and template", "template", "nothing"])
def test_an_adapters_own_tokenizer_and_template_are_used(
    what, way, adapter_folder, tiny_model_folder, tiny_tokenizer
):
    own = tiny_tokenizer(chat=True)
    own.add_tokens(["<own>"])
    if what == "template":
        (adapter_folder / "chat_template.jinja").write_text(own.chat_template)
    elif what != "nothing":
        own.save_pretrained(adapter_folder)
    if way == "model.name":
        found = load_tokenizer(named(adapter_folder))
    else:
        found = load_tokenizer(named(tiny_model_folder), str(adapter_folder))
    assert found.chat_template == (None if what == "nothing" else own.chat_template)
    assert ("<own>" in found.get_vocab()) == (what == "tokenizer and template")


def test_a_tokenizer_without_padding_pads_with_the_end_token(tiny_tokenizer, tmp_path):
    tiny_tokenizer(pad=False).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    found = load_tokenizer(named(tmp_path))
    assert found.pad_token_id == found.eos_token_id == 2


def test_a_tokenizer_without_an_end_token_is_an_input_error(tiny_tokenizer, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="no end token"):
        load_tokenizer(named(tmp_path))
