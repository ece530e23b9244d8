"""Samples as token ids, and batches of them; the order of batches is a function of (seed, epoch).

Knows nothing of models and losses: a batch says which tokens are answers, not what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grail.data.samples import Sample
from grail.errors import InputError


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
