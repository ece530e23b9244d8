"""Who races on what: the packaged model or random weights of a Llama's shape; real rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from grail.config.run import Model
from grail.data.encode import Encoded, Encoder
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.data.readers import read_rows
from grail.data.samples import Sample
from grail.model.forward import Policy, trainable
from grail.model.load import load_model, load_tokenizer

FOLDER = "knowundo_privacy"
FILES = {"unlearn": "unlearn_train.jsonl", "retain": "retention_train.jsonl"}
MAX_TOKENS = 256
FIRST = 3  # ids below are special


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes."""

    hidden: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int

    def config(self) -> LlamaConfig:
        """Return what transformers builds a model from."""
        return LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            intermediate_size=self.inner,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


PACKAGED = "smollm2-135m"

SHAPES: dict[str, Shape | None] = {
    PACKAGED: None,
    "tiny": Shape(32, 2, 64, 2, 1, 320),
    "llama-1m": Shape(128, 4, 384, 4, 2, 2048),
    "llama-6m": Shape(256, 6, 768, 4, 2, 2048),
    "llama-25m": Shape(512, 8, 1536, 8, 4, 2048),
    "llama-1b": Shape(2048, 16, 8192, 32, 8, 128256),
    "llama-7b": Shape(4096, 32, 11008, 32, 32, 32000),
}
"""Name -> sizes, or None for the packaged model."""


@dataclass(frozen=True)
class Subject:
    """Which model, where and how: can be sent to another process, which then loads its own.

    Attributes:
        name: A name of ``SHAPES``.
        dtype: Precision of the weights.
        device: "cpu" or "cuda".
        full: Whether all weights are trained, rather than an adapter of rank 8.
    """

    name: str
    dtype: str
    device: str
    full: bool = False

    @property
    def shape(self) -> Shape | None:
        """The sizes, or None for the packaged model."""
        return SHAPES[self.name]

    def policy(self) -> Policy:
        """Return the model, its adapter moved off zero."""
        if self.shape is None:
            given: dict[str, Any] = {"name": self.name, "dtype": self.dtype}
            given |= {"lora": None} if self.full else {}
            model = load_model(Model.model_validate(given), None, seed=0).to(self.device)
        else:
            model = self._random(self.shape)
        if not self.full:
            _move_off_zero(model)
        return model.eval()

    def _random(self, shape: Shape) -> Policy:
        with torch.random.fork_rng(), torch.device(self.device):
            torch.manual_seed(0)
            attention = "sdpa" if self.device == "cuda" else "eager"
            model = AutoModelForCausalLM.from_config(
                shape.config(), dtype=getattr(torch, self.dtype), attn_implementation=attention
            )
            if self.full:
                return model
            adapter = LoraConfig(
                r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            return get_peft_model(model, adapter)


@dataclass(frozen=True)
class Field:
    """A loaded subject with its rows, ``factor`` times as long as the samples are."""

    subject: Subject
    model: Policy
    tokenizer: Any
    samples: tuple[Sample, ...]
    factor: int = 1

    @property
    def pad(self) -> int:
        """Padding token id."""
        return self.tokenizer.pad_token_id

    @cached_property
    def rows(self) -> list[Encoded]:
        """The samples in ids; a vocabulary smaller than the tokenizer's takes them modulo."""
        encoder = Encoder(self.tokenizer, "plain", MAX_TOKENS)
        rows = [lengthened(encoder.encode(sample)[0], self.factor) for sample in self.samples]
        size = self.vocabulary
        if len(self.tokenizer) <= size:
            return rows
        return [replace(row, ids=tuple(_folded(i, size) for i in row.ids)) for row in rows]

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows."""
        return self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]

    @cached_property
    def labels(self) -> RandomLabels:
        """Random labels as a run draws them."""
        size = min(self.vocabulary, len(self.tokenizer))
        tokens = ordinary_tokens(size, self.tokenizer.all_special_ids)
        return RandomLabels(tokens, "inputs_and_targets", 0)

    def start(self) -> dict[str, torch.Tensor]:
        """Return copies of what training may change."""
        return {n: p.detach().clone() for n, p in trainable(self.model).items()}

    def put(self, weights: dict[str, torch.Tensor]) -> None:
        """Give the trainable weights these values."""
        with torch.no_grad():
            for name, parameter in trainable(self.model).items():
                parameter.copy_(weights[name])


def field_of(
    subject: Subject, data: Path | None, count: int, domains: int = 1, factor: int = 1
) -> Field:
    """Load a subject and ``count`` rows of each domain."""
    samples = tuple(samples_of(data, count, domains))
    return Field(subject, subject.policy(), tokenizer_of(subject), samples, factor)


def tokenizer_of(subject: Subject) -> Any:
    """Return the packaged model's tokenizer; "tiny" has one token per byte, made in memory."""
    if subject.name == "tiny":
        return _byte_tokenizer()
    return load_tokenizer(Model.model_validate({"name": PACKAGED}))


def samples_of(data: Path | None, count: int, domains: int = 1) -> list[Sample]:
    """Return ``count`` samples of each domain, the sides in turn, in the order of their files.

    Where the file ends it begins again, under other keys; every domain holds the same texts.
    """
    sides = {side: _texts(data, side) for side in FILES}
    names = ["privacy", *(f"privacy-{number}" for number in range(2, domains + 1))]
    samples = []
    for domain in names:
        for number in range(count):
            side = tuple(FILES)[number % len(FILES)]
            row = number // len(FILES)
            prompt, completion = sides[side][row % len(sides[side])]
            samples.append(Sample(domain, side, "train", row, prompt, completion))
    return samples


def lengthened(row: Encoded, factor: int) -> Encoded:
    """Return the row with its answer repeated, so that it has ``factor`` times as many tokens."""
    if factor == 1:
        return row
    more = (row.answer * (factor * len(row.ids)))[: factor * len(row.ids) - row.start]
    return replace(row, ids=(*row.ids[: row.start], *more))


def source_of(data: Path | None, side: str) -> str:
    """Return where the rows of a side are, as a configuration says it."""
    return "embedded" if data is None else str(data / FOLDER / FILES[side])


def _texts(data: Path | None, side: str) -> Sequence[tuple[str, str]]:
    rows = read_rows(source_of(data, side), ("privacy", side, "train"))
    return [(row["prompt"], row["completion"]) for _, row in rows]


def _folded(token: int, size: int) -> int:
    return token if token < size else FIRST + token % (size - FIRST)


def _move_off_zero(model: Policy) -> None:
    """A fresh adapter has B = 0, so that gradients of A vanish; a trained one has not."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def _byte_tokenizer() -> Any:
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({t: i for i, t in enumerate([*special, *alphabet])}, []))
    inner.add_special_tokens(special)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)
