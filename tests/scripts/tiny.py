"""Tiny models with random weights, byte-level tokenizers and rows, made in memory."""

from __future__ import annotations

import random

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from grail.data.encode import Encoded
from grail.data.samples import Sample

VOCABULARY = 96
WIDTH = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "llama": WIDTH,
    "qwen2": WIDTH,
    "gemma": WIDTH,
    "gemma2": WIDTH | {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 12},
    "gpt_neox": WIDTH | {"rotary_pct": 0.5},
    "mistral": WIDTH,
    "gemma3_text": WIDTH | {"query_pre_attn_scalar": 12},
    "gpt_oss": WIDTH | {"num_local_experts": 2, "num_experts_per_tok": 1},
    "qwen2_moe": WIDTH
    | {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24}
    | {"shared_expert_intermediate_size": 24, "max_window_layers": 1},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 512},
}
"""model_type -> the settings that make it small."""

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _randomise(model, seed):
    """Give every entry a value far from its initial one: norms off 1, biases and LoRA's B off 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.2 * noise)
            else:  # a strong adapter would saturate attention: tiny gradients, all rounding
                scale = 0.3 if "lora_" in name else 1.0
                parameter.copy_(noise * scale / parameter.shape[-1] ** 0.5)


def tiny_model(family="llama", lora=True, tied=None, seed=0, vocabulary=VOCABULARY, **more):
    """Return a float32 model; equal arguments give equal weights."""
    settings = {**FAMILIES[family], **more}
    settings |= {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if tied is not None:
        settings["tie_word_embeddings"] = tied
    config = AutoConfig.for_model(family, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        if lora:
            targets = ["c_attn", "c_proj", "c_fc"] if family == "gpt2" else "all-linear"
            adapter = LoraConfig(
                r=3,
                lora_alpha=6,
                target_modules=targets,
                fan_in_fan_out=family == "gpt2",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(model, adapter)
    _randomise(model, seed)
    return model.float()


def tiny_tokenizer(bos=True, chat=False, pad=True):
    """One token per byte, so that any text can be encoded and counted by hand."""
    special = ["<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.add_special_tokens(special)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
        )
    names = {"bos_token": "<bos>", "eos_token": "<eos>"} | ({"pad_token": "<pad>"} if pad else {})
    extra = {"extra_special_tokens": special[3:]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names, **extra)
    if chat:
        tokenizer.chat_template = CHAT
    return tokenizer


def tiny_rows(count, seed=0, vocabulary=VOCABULARY, prompt=(2, 6), answer=(1, 9)):
    """Encoded samples of different lengths; ids from 3 on (0 to 2 are special)."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        start = draw.randint(*prompt)
        length = start + draw.randint(*answer)
        ids = tuple(draw.randrange(3, vocabulary) for _ in range(length))
        sample = Sample("d", "unlearn", "train", 1000 * seed + i, "", "")
        rows.append(Encoded(sample, ids, start))
    return rows
