"""Chat templates and tokenizers that behave as those of ten families of models; written anew."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TURNS = (
    "{%- if (turn.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('take turns') -}}{%- endif -%}"
)
"""Refuses turns that do not alternate."""

LLAMA_2 = (
    "{%- set note, turns = '', messages -%}"
    "{%- if messages[0].role == 'system' -%}{%- set turns = messages[1:] -%}"
    "{%- set note = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}{%- endif -%}"
    "{%- for turn in turns -%}" + TURNS + "{%- if turn.role == 'user' -%}"
    "{{- bos_token + '[INST] ' + (note if loop.first else '') -}}"
    "{{- turn.content.strip() + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + turn.content.strip() + ' ' + eos_token -}}{%- endif -%}{%- endfor -%}"
)
LLAMA_3_2 = (
    "{{- bos_token -}}{%- set turns, told = messages, '' -%}"
    "{%- if messages[0].role == 'system' -%}"
    "{%- set turns, told = messages[1:], messages[0].content|trim -%}{%- endif -%}"
    "{%- if date_string is not defined -%}{%- if strftime_now is defined -%}"
    "{%- set date_string = strftime_now('%d %b %Y') -%}{%- else -%}"
    "{%- set date_string = '26 Jul 2024' -%}{%- endif -%}{%- endif -%}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n\\n' -}}"
    "{{- told + '<|eot_id|>' -}}{%- for turn in turns -%}"
    "{{- '<|start_header_id|>' + turn.role + '<|end_header_id|>\\n\\n' -}}"
    "{{- turn.content|trim + '<|eot_id|>' -}}{%- endfor -%}{%- if add_generation_prompt -%}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
CHATML = (
    "{%- if messages[0].role != 'system' -%}"
    "{{- '<|im_start|>system\\nBe of use.<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for turn in messages -%}{{- '<|im_start|>' + turn.role + '\\n' -}}"
    "{{- turn.content + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
QWEN_3 = (
    "{%- for turn in messages -%}{{- '<|im_start|>' + turn.role + '\\n' -}}"
    "{%- set said, thought = turn.content, '' -%}"
    "{%- if turn.role == 'assistant' and '</think>' in said -%}"
    "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}"
    "{%- set said = said.split('</think>')[-1] -%}{%- endif -%}"
    "{%- if turn.role == 'assistant' and (loop.last or thought) -%}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}"
    "{{- (said.lstrip('\\n') if turn.role == 'assistant' else said) + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}"
    "{%- if enable_thinking is defined and not enable_thinking -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{%- endif -%}"
)
GEMMA = (
    "{{- bos_token -}}{%- set note, turns = '', messages -%}"
    "{%- if messages[0].role == 'system' -%}SYSTEM{%- endif -%}"
    "{%- for turn in turns -%}" + TURNS + "{{- '<start_of_turn>' -}}"
    "{{- ('model' if turn.role == 'assistant' else turn.role) + '\\n' -}}"
    "{{- (note if loop.first else '') + turn.content|trim + '<end_of_turn>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"
)
GEMMA_2 = GEMMA.replace("SYSTEM", "{{- raise_exception('no system role') -}}")
GEMMA_3 = GEMMA.replace(
    "SYSTEM", "{%- set note, turns = messages[0].content + '\\n\\n', messages[1:] -%}"
)
PHI_3 = (
    "{%- for turn in messages -%}{{- '<|' + turn.role + '|>\\n' + turn.content + '<|end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}"
    "{%- else -%}{{- eos_token -}}{%- endif -%}"
)
MISTRAL = (
    "{{- bos_token -}}{%- set note, turns = '', messages -%}"
    "{%- if messages[0].role == 'system' -%}"
    "{%- set note, turns = messages[0].content + '\\n\\n', messages[1:] -%}{%- endif -%}"
    "{%- for turn in turns -%}" + TURNS + "{%- if turn.role == 'user' -%}"
    "{{- '[INST] ' + (note if loop.revindex <= 2 else '') + turn.content + '[/INST]' -}}"
    "{%- else -%}{{- ' ' + turn.content + eos_token -}}{%- endif -%}{%- endfor -%}"
)
GPT_OSS = (
    "{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') -}}"
    "{{- '\\n# Channels: analysis, final.<|end|>' -}}{%- for turn in messages -%}"
    "{%- if turn.role == 'assistant' -%}{%- if '<|channel|>' in turn.content -%}"
    "{{- raise_exception('a channel in the content') -}}{%- endif -%}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + turn.content -}}"
    "{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' -}}{%- else -%}"
    "{{- '<|start|>' + ('developer' if turn.role == 'system' else turn.role) + '<|message|>' -}}"
    "{{- ('# Instructions\\n' if turn.role == 'system' else '') + turn.content + '<|end|>' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}"
)


@dataclass(frozen=True)
class Family:
    """How a family writes chats.

    Attributes:
        template: Its chat template.
        end: The token that ends an answer.
        bos, eos: Its tokenizer's tokens for the start and the end of a text.
        special: Its other special tokens.
        added: Added tokens that are not special.
        pieces: Whether spaces are parts of words, marked as SentencePiece does; else bytes.
        marks: Whether a text's first word is marked as if a space stood before it.
        swallows: Whether special tokens take the spaces after them.
        system: Whether a system turn is allowed.
    """

    template: str
    end: str
    bos: str
    eos: str
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    pieces: bool = False
    marks: bool = False
    swallows: bool = False
    system: bool = True


_IM = ("<|im_start|>", "<|im_end|>")
_TURN = ("<start_of_turn>", "<end_of_turn>")
_HEADER = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_OSS = ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>")
_SPM = {"pieces": True, "marks": True}
FAMILIES = {
    "llama 2": Family(LLAMA_2, "</s>", "<s>", "</s>", **_SPM),
    "llama 3.2": Family(LLAMA_3_2, "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>", _HEADER),
    "qwen 2.5": Family(CHATML, "<|im_end|>", "<|endoftext|>", "<|im_end|>", _IM[:1]),
    "qwen 3": Family(
        *(QWEN_3, "<|im_end|>", "<|endoftext|>", "<|im_end|>", _IM[:1], ("<think>", "</think>"))
    ),
    "gemma 2": Family(GEMMA_2, _TURN[1], "<bos>", "<eos>", _TURN, pieces=True, system=False),
    "gemma 3": Family(GEMMA_3, _TURN[1], "<bos>", "<eos>", _TURN, pieces=True),
    "phi 3": Family(PHI_3, "<|end|>", "<s>", "<|endoftext|>", _PHI, swallows=True, **_SPM),
    "mistral": Family(MISTRAL, "</s>", "<s>", "</s>", ("[INST]", "[/INST]"), **_SPM),
    "smollm 2": Family(CHATML, "<|im_end|>", "<|endoftext|>", "<|endoftext|>", _IM),
    "gpt oss": Family(GPT_OSS, "<|return|>", "<|startoftext|>", "<|return|>", _OSS),
}


def tokenizer_of(family: Family, template: str | None = None) -> PreTrainedTokenizerFast:
    """Make a family's tokenizer, of one token per letter but for a few merges."""
    names = list(dict.fromkeys(["<pad>", family.bos, family.eos, *family.special]))
    if family.pieces:
        letters = ["▁", *map(chr, range(33, 127)), "\n", "é", "ß"]
        merges = [("▁", "n"), ("▁", "o"), ("o", "r"), ("\n", "\n")]
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        merges = [("Ċ", "Ċ"), ("o", "r"), ("Ġ", "n")]
    words = [*names, *letters, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    if family.pieces:
        scheme = "first" if family.marks else "never"
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    else:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.post_processor = processors.ByteLevel(trim_offsets=True)
        inner.decoder = decoders.ByteLevel()
    strips = {"special": True, "normalized": False, "rstrip": family.swallows}
    inner.add_special_tokens([AddedToken(name, **strips) for name in names])
    inner.add_tokens([AddedToken(name, normalized=False) for name in family.added])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token=family.bos, eos_token=family.eos
    )
    tokenizer.chat_template = family.template if template is None else template
    return tokenizer
