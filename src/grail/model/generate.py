"""Greedy or sampled continuations of prompts; knows no side and no domain."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.data.encode import Encoded
from grail.model.forward import Policy, device_of, evaluating, positions_of, without_adapter
from grail.model.fused_lora import fused
from grail.model.probe import shares


class Edges(NamedTuple):
    """The tokens that end a text, and those that it may begin with; None: all."""

    ends: Collection[int]
    begins: Collection[int] | None = None


def all_but(tokens: Collection[int], logits: Float[Tensor, "K V"]) -> Bool[Tensor, " V"]:
    """Return where the vocabulary of logits has other tokens than these."""
    others = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others[sorted(tokens)] = False
    return others


@dataclass(frozen=True)
class _FirstOf:
    """Leaves only the allowed tokens at the position after the prompts (a logits processor)."""

    allowed: Collection[int]
    width: int

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] != self.width:
            return scores
        return scores.masked_fill(all_but(self.allowed, scores), -torch.inf)


@dataclass(frozen=True)
class TextGenerator:
    """Continues the prompts of rows in batches.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        limit: The most tokens of a text.
        batch_size: Prompts of a batch.
    """

    model: Policy
    tokenizer: Any
    limit: int
    batch_size: int

    def texts(
        self,
        rows: Sequence[Encoded],
        on_done: Callable[[int], None],
        seed: int | None = None,
        known: Mapping[Encoded, int] | None = None,
    ) -> list[str]:
        """Continue the rows' prompts, and return the texts in the order of ``rows``.

        A row may occur several times. ``on_done`` is called with the number of finished texts.
        ``seed`` is that of the samples, another for each batch; None: greedily.

        ``known`` is row -> number of answer tokens with which its greedy text is known to begin: a
        teacher-forced pass found each of them most probable after those before it. They are
        appended to the prompt; a text that is known to its end takes no step at all.
        """
        ends = end_tokens(self.model, self.tokenizer, rows)
        limits = [most_new(row, self.limit) for row in rows]
        shares = [min((known or {}).get(row, 0), limits[i]) for i, row in enumerate(rows)]
        heads = [row.answer[:share] for row, share in zip(rows, shares, strict=True)]
        ids = [_until(ends, head) for head in heads]
        pending = [i for i in range(len(rows)) if len(ids[i]) == len(heads[i]) < limits[i]]
        done = len(rows) - len(pending)
        if done:
            on_done(done)
        for batch in _batches(rows, list(map(len, heads)), pending, self.batch_size):
            prompts = [(*rows[i].ids[: rows[i].start], *heads[i]) for i in batch]
            most = [limits[i] - len(heads[i]) for i in batch]
            own = None if seed is None else seed + done
            new = generate(self.model, prompts, most, self.tokenizer, own, Edges(ends))
            for i, tokens in zip(batch, new, strict=True):
                ids[i] += tokens
            done += len(batch)
            on_done(done)
        return [self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in ids]


def end_tokens(model: Policy, tokenizer: Any, rows: Sequence[Encoded] = ()) -> frozenset[int]:
    """Return the tokens that end a text: the rows', the tokenizer's, and the model's own."""
    named = without_adapter(model).generation_config.eos_token_id
    own = named if isinstance(named, (list, tuple)) else [named]
    return frozenset({tokenizer.eos_token_id, *own, *(row.end for row in rows)} - {None})


def _until(ends: Collection[int], tokens: Sequence[int]) -> list[int]:
    """Return the tokens before the first end token."""
    return list(takewhile(lambda token: token not in ends, tokens))


def most_new(row: Encoded, limit: int) -> int:
    """Return the most tokens to generate: half as many again as the answer, within a limit."""
    return min(limit, len(row.answer) + len(row.answer) // 2 + 4)


def groups_of(rows: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Return the batches of ``TextGenerator.texts``, as indices of ``rows``."""
    return _batches(rows, [0] * len(rows), range(len(rows)), batch_size)


def _batches(
    rows: Sequence[Encoded], known: Sequence[int], indices: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Put rows with similar numbers of tokens to generate and to read into the same batch."""

    def likeness(i: int) -> tuple[int, int, str]:
        return len(rows[i].answer) - known[i], rows[i].start + known[i], rows[i].key

    order = sorted(indices, key=likeness)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@torch.no_grad()
def generate(
    model: Policy,
    prompts: Sequence[Sequence[int]],
    most: Sequence[int],
    tokenizer: Any,
    seed: int | None = None,
    edges: Edges | None = None,
) -> list[list[int]]:
    """Continue a batch of prompts and return the new token ids, without the end token.

    Prompts are token ids, one sequence per row, padded on the left here; ``most`` are the most
    tokens to generate, per row. Samples are drawn by ``seed`` from the model's full distribution,
    at temperature 1 (no top-k, no top-p); None: greedily. Without ``edges`` a text begins with any
    token and ends with one of ``end_tokens``.
    """
    if len(groups := _parts(model, prompts, most, tokenizer.pad_token_id)) > 1:
        texts: dict[int, list[int]] = {}
        for group in groups:
            part, limit = [prompts[i] for i in group], [most[i] for i in group]
            own = None if seed is None else seed + group[0]
            new = generate(model, part, limit, tokenizer, own, edges)
            texts |= zip(group, new, strict=True)
        return [texts[i] for i in range(len(prompts))]
    width, device = max(map(len, prompts)), device_of(model)
    pad, (ends, begins) = tokenizer.pad_token_id, edges or Edges(end_tokens(model, tokenizer))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    limits = {"max_new_tokens": max(most), "pad_token_id": pad, "eos_token_id": sorted(ends)}
    first = [] if begins is None else [_FirstOf(begins, width)]
    with evaluating(model), fused(model), _settings(model, seed, limits) as settings:
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=attention.to(device),
            generation_config=settings,
            logits_processor=first,
        )
    new = zip(out[:, width:].tolist(), most, strict=True)
    return [_until(ends, row[:limit]) for row, limit in new]


@torch.no_grad()
def streamed(
    generator: TextGenerator,
    row: Encoded,
    show: Callable[[str], None],
    seed: int | None = None,
) -> str:
    """Continue one row's prompt, word by word, and return the text; its answer is not read.

    ``show`` is called with each piece of the text as soon as it is certain. ``seed`` is that of a
    sample; None: greedily.
    """
    from transformers import TextStreamer

    model, tokenizer = generator.model, generator.tokenizer
    pieces: list[str] = []

    def take(text: str, stream_end: bool = False) -> None:
        del stream_end
        if text:
            pieces.append(text)
            show(text)

    streamer: Any = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.on_finalized_text = take
    pad, ends = tokenizer.pad_token_id, sorted(end_tokens(model, tokenizer, [row]))
    limits = {"max_new_tokens": generator.limit, "pad_token_id": pad, "eos_token_id": ends}
    ids = torch.tensor([row.ids[: row.start]], device=device_of(model))
    with evaluating(model), fused(model), _settings(model, seed, limits) as settings:
        model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            streamer=streamer,
        )
    return "".join(pieces)


def _parts(
    model: Policy, prompts: Sequence[Sequence[int]], most: Sequence[int], pad: int
) -> list[list[int]]:
    """Part a batch where sharing it would change answers, or ask for positions that are not there.

    Models that read padding (recurrent ones) get prompts of one length together, or one by one.
    """
    lengths = list(map(len, prompts))
    sharing = shares(model, pad) if len(prompts) > 1 else "any"
    beyond = max(lengths) + max(most) > (positions_of(model.config) or math.inf)
    if sharing == "none" or beyond:
        return [[i] for i in range(len(prompts))]
    if sharing == "any":
        return [list(range(len(prompts)))]
    return [[i for i, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]


@contextmanager
def _settings(model: Policy, seed: int | None, limits: dict[str, Any]) -> Iterator[Any]:
    """Yield settings that hold alone inside the block, and restore the global random state after.

    The model's own generation settings (a repetition penalty, for example) are set aside: with
    them, decoding would not be greedy.
    """
    from transformers import GenerationConfig

    inner = without_adapter(model)
    before = inner.generation_config
    with torch.random.fork_rng(enabled=seed is not None):
        try:
            inner.generation_config = GenerationConfig()
            if seed is None:
                yield GenerationConfig(do_sample=False, **limits)
            else:
                torch.manual_seed(seed)
                full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
                yield GenerationConfig(do_sample=True, **full, **limits)
        finally:
            inner.generation_config = before
