"""GGUF files of tiny Llama models, written tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def tensors_of(model: Any) -> dict[str, np.ndarray]:
    """Return a Llama's weights by their GGUF names, with the rows of Q and K in GGUF's order."""
    found = {}
    for name, value in model.state_dict().items():
        array, new = value.numpy(), name
        for ours, theirs in NAMES.items():
            new = new.replace(ours, theirs)
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
        for part, key in heads.items():
            if f".{part}." in new:
                count = getattr(model.config, key)
                halves = array.reshape(count, 2, array.shape[0] // count // 2, -1)
                array = halves.swapaxes(1, 2).reshape(array.shape)
        found[new] = np.ascontiguousarray(array)
    return found


def write_gguf(
    file: Path, model: Any, tokenizer: Any, tensors: Mapping[str, np.ndarray], parts: int = 0
) -> Path:
    """Write a GGUF file of a tiny Llama; ``parts``: what it says of how many files there are."""
    config, writer = model.config, gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if parts:
        writer.add_uint16("split.count", parts)
    names = [*tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))), "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_types([3 if name.startswith("<") and len(name) > 1 else 1 for name in names])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
