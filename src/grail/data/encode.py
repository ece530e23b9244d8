"""Samples as token ids, and batches of them; the order of batches is a function of (seed, epoch).

Knows nothing of models and losses: a batch says which tokens are answers, not what they are for.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grail.data.samples import Sample
from grail.errors import InputError

IGNORED = -100
"""Target at positions that no loss reads (prompt and padding), as everywhere in the field."""


@dataclass(frozen=True)
class Encoded:
    """One sample in token ids; ``ids[start:]`` is the completion with its end token.

    ``targets`` stands in for ``ids[start:]`` where labels are substituted; None: the true ones.
    """

    key: str
    domain: str
    side: str
    part: str
    ids: tuple[int, ...]
    start: int
    targets: tuple[int, ...] | None = field(default=None, compare=False)

    @property
    def answer(self) -> tuple[int, ...]:
        """The completion's token ids, end token included."""
        return self.ids[self.start :]


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right. ``targets[b, t]`` is what position t must predict (shifted).

    Attributes:
        ids: Token ids.
        attention: 1 on tokens, 0 on padding.
        targets: The next token at positions that predict an answer token, IGNORED elsewhere.
        rows: The encoded samples, in the order of the rows.
    """

    ids: Int[Tensor, "B T"]
    attention: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    rows: tuple[Encoded, ...]

    @property
    def at(self) -> Bool[Tensor, "B T"]:
        """Where an answer token is predicted."""
        return self.targets != IGNORED

    @property
    def lengths(self) -> list[int]:
        """Answer tokens per row."""
        return [len(row.answer) for row in self.rows]


@dataclass(frozen=True)
class Encoder:
    """Turns samples into ids with one tokenizer and template (``data.template``)."""

    tokenizer: Any
    template: str
    max_tokens: int

    def encode(self, sample: Sample) -> tuple[Encoded, int]:
        """Return the sample in ids, and how many completion tokens ``max_tokens`` cut away."""
        prompt = self._prompt(sample)
        answer = self.tokenizer(sample.completion, add_special_tokens=False)["input_ids"]
        answer = [*answer, self.tokenizer.eos_token_id]
        kept = answer[: max(0, self.max_tokens - len(prompt))]
        ids = (*prompt, *kept)
        encoded = Encoded(
            sample.key, sample.domain, sample.side, sample.part, ids, start=len(prompt)
        )
        return encoded, len(answer) - len(kept)

    def _prompt(self, sample: Sample) -> list[int]:
        turns = [*sample.context, ("user", sample.prompt)]
        if self._chat():
            messages = [{"role": role, "content": text} for role, text in turns]
            try:
                text = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # templates raise what their authors chose
                raise InputError(
                    f"{sample.key}: the tokenizer's chat template refuses this row ({error}). "
                    "Use data.template: plain, or change the row's turns."
                ) from error
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        text = "\n\n".join(text for _, text in turns) + "\n\n"
        return self.tokenizer(text)["input_ids"]

    def _chat(self) -> bool:
        has = bool(getattr(self.tokenizer, "chat_template", None))
        if self.template == "chat" and not has:
            raise InputError(
                "data.template: chat, but this model's tokenizer has no chat template. "
                "Use auto or plain."
            )
        return has and self.template != "plain"


def encode_all(encoder: Encoder, samples: Sequence[Sample]) -> tuple[list[Encoded], list[str]]:
    """Encode all samples; also return warnings with counts of completions that were cut.

    Raises:
        InputError: if a prompt alone fills ``data.max_tokens``, so that nothing is left to predict.
    """
    pairs = [encoder.encode(sample) for sample in samples]
    empty = [encoded.key for encoded, _ in pairs if not encoded.answer]
    if empty:
        raise InputError(
            f"data.max_tokens: {encoder.max_tokens} leaves no completion token in {len(empty)} "
            f"rows (first: {', '.join(empty[:3])}): their prompts alone fill it. "
            "Raise data.max_tokens or drop these rows."
        )
    cut = [(encoded.key, lost) for encoded, lost in pairs if lost]
    warnings = []
    if cut:
        longest = max(len(encoded.ids) + lost for encoded, lost in pairs)
        warnings.append(
            f"data.max_tokens: {encoder.max_tokens} cuts {sum(n for _, n in cut)} tokens off the "
            f"completions of {len(cut)} of {len(pairs)} rows (first: {cut[0][0]}); "
            f"{longest} would keep all."
        )
    return [encoded for encoded, _ in pairs], warnings


def collate(rows: Sequence[Encoded], pad: int, device: torch.device | str = "cpu") -> Batch:
    """Pad rows on the right (a causal model never sees padding to the right of a token)."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED)
    for b, row in enumerate(rows):
        length = len(row.ids)
        ids[b, :length] = torch.tensor(row.ids)
        attention[b, :length] = 1
        goal = row.answer if row.targets is None else row.targets
        targets[b, row.start - 1 : length - 1] = torch.tensor(goal)
    return Batch(ids.to(device), attention.to(device), targets.to(device), tuple(rows))


def stream(*words: object) -> random.Random:
    """Return a random stream of its own for the given words, such as (seed, epoch)."""
    text = "/".join(str(word) for word in words)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def shuffled(rows: Sequence[Encoded], *words: object) -> list[Encoded]:
    """Return the rows in an order that depends on ``words`` only."""
    order = list(rows)
    stream(*words).shuffle(order)
    return order


def by_length(rows: Sequence[Encoded], shortest: float = 0.7) -> list[list[Encoded]]:
    """Group the rows of a step so that no row is padded to more than 1 / ``shortest`` its length.

    Short and long rows together would compute mostly on padding; a loss that adds up over rows
    does not mind the split.
    """
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if groups and len(row.ids) >= shortest * len(groups[-1][0].ids):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def by_tokens(rows: Sequence[Encoded], batch_tokens: int, copies: int = 1) -> list[list[Encoded]]:
    """Group rows of similar length so that a padded batch has at most ``batch_tokens`` tokens.

    A row longer than the budget makes a batch of its own. ``copies`` is how often each row will
    stand in the batch (the trials of a sample).
    """
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: (len(row.ids), row.key)):
        fits = groups and len(row.ids) * (len(groups[-1]) + 1) * copies <= batch_tokens
        if fits:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
