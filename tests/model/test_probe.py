"""Encoders are told from causal models, and models that read padding from those that do not."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from grail.errors import InputError
from grail.model.generate import generate
from grail.model.probe import logits_of, refuse_looking_ahead, same_logits, shares, short_row

COMMON = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDTH = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
STATE = {"state_size": 4, "expand": 2, "num_hidden_layers": 2, "hidden_size": 24}
MAMBA2 = {"num_heads": 6, "head_dim": 8, "n_groups": 1, "chunk_size": 4}
RECURRENT = {
    "rwkv": WIDTH | {"attention_hidden_size": 24},
    "mamba": STATE,
    "mamba2": STATE | MAMBA2,
    "recurrent_gemma": WIDTH | {"lru_width": 24, "num_hidden_layers": 3, "num_key_value_heads": 1},
    "jamba": WIDTH
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_key_value_heads": 1}
    | {"num_experts": 2, "use_mamba_kernels": False, "mamba_d_state": 4, "mamba_dt_rank": 2},
    "bamba": WIDTH
    | {"attn_layer_indices": [1], "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_d_state": 8}
    | {"mamba_n_groups": 1, "mamba_chunk_size": 4, "num_key_value_heads": 1},
}
ENCODERS = {
    "bert": WIDTH,
    "roberta": WIDTH,
    "xlnet": {"d_model": 24, "n_layer": 2, "n_head": 2, "d_inner": 40},
}


def made(family, settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **(COMMON | settings))
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
        with torch.no_grad():
            for parameter in model.parameters():  # far from initial values, which hide much
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_is_refused(family):
    model = made(family, ENCODERS[family])
    with pytest.raises(InputError, match=rf"{type(model).__name__} reads the tokens it must"):
        refuse_looking_ahead(model)


def test_an_encoder_that_was_made_a_decoder_is_not():
    refuse_looking_ahead(made("bert", WIDTH | {"is_decoder": True}))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe", "gpt_oss"])
@pytest.mark.parametrize("lora", [True, False])
def test_a_causal_model_passes_and_shares_any_batch(family, lora, tiny_model):
    model = tiny_model(family, lora=lora)
    refuse_looking_ahead(model)
    assert shares(model, 0) == "any"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_without_numbers_is_not_blamed_for_looking_ahead(value, tiny_model):
    model = tiny_model(lora=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = value
    with pytest.raises(InputError, match="computes no numbers"):
        refuse_looking_ahead(model)


def test_a_model_that_reads_no_single_row_is_refused():
    class Other(torch.nn.Linear):
        def get_input_embeddings(self):
            return self

    with pytest.raises(InputError, match="Other cannot read a row of text alone"):
        refuse_looking_ahead(Other(2, 600))


@pytest.mark.parametrize("family", RECURRENT)
def test_recurrent_models_continue_each_prompt_as_alone(family, tiny_tokenizer):
    model, tokenizer = made(family, RECURRENT[family]), tiny_tokenizer()
    refuse_looking_ahead(model)
    assert shares(model, 0) in ("equal", "none")
    draw = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 96, (n,), generator=draw).tolist() for n in (3, 7, 7, 4)]
    alone = [generate(model, [prompt], [5], tokenizer)[0] for prompt in prompts]
    assert generate(model, prompts, [5] * 4, tokenizer) == alone
    assert any(alone)


def test_same_logits_allows_rounding_alone(tiny_model):
    model = tiny_model(lora=False)
    logits = logits_of(model, short_row(model))
    assert same_logits(model, logits * (1 + 1e-6), logits)
    assert not same_logits(model, logits + torch.randn_like(logits) * 0.1 * logits.std(), logits)


def test_what_was_taught_to_an_adapter_does_not_decide_what_shares_a_batch(tiny_model, monkeypatch):
    """Rounding that grows with the batch is no mixing of its rows; the first token may differ."""
    model = tiny_model(lora=True)
    layers = [m for n, m in model.named_modules() if n.endswith("lora_B.default")]
    assert layers
    for layer in layers:
        plain = layer.forward
        monkeypatch.setattr(layer, "forward", lambda x, f=plain: f(x) + 0.1 * (len(x) - 1))
    alone, both = [generated(model, rows) for rows in ([[5, 6, 7]], [[5, 6, 7], [8, 9, 10]])]
    assert not torch.equal(alone[0], both[0])
    assert shares(model, 0) == "any"


@torch.no_grad()
def generated(model, rows):
    return model(input_ids=torch.tensor(rows)).logits[:, -1]


def test_a_tie_between_first_tokens_does_not_decide_what_shares_a_batch(tiny_model, monkeypatch):
    """The greedy first token of a row in a batch is another than alone, by next to nothing."""
    model = tiny_model(lora=False)
    head = model.get_output_embeddings()
    plain, calls = head.forward, []

    def tied(x):
        logits = plain(x)
        logits[..., 7] = logits[..., 8] = 9.0
        logits[..., 7 + (len(x) > 1)] += 1e-5
        calls.append(len(x))
        return logits

    monkeypatch.setattr(head, "forward", tied)
    assert shares(model, 0) == "any"
    assert set(calls) == {1, 2}
