"""Samples as token ids; knows nothing of models and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grail.data.samples import Place, Sample
from grail.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """A sample in token ids.

    Attributes:
        sample: The sample.
        ids: The prompt, the completion and the end token.
        start: ``ids[start:]`` is the completion with its end token.
        targets: Substituted labels for ``ids[start:]``; None: the true ones.
    """

    sample: Sample
    ids: tuple[int, ...]
    start: int
    targets: tuple[int, ...] | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The sample's name in files and logs."""
        return self.sample.key

    @property
    def place(self) -> Place:
        """The sample's domain, side and part."""
        return self.sample.place

    @property
    def domain(self) -> str:
        """The sample's domain."""
        return self.sample.domain

    @property
    def side(self) -> str:
        """The sample's side."""
        return self.sample.side

    @property
    def part(self) -> str:
        """The sample's part."""
        return self.sample.part

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
        """Return the sample in ids, and how many completion tokens ``max_tokens`` cut off."""
        prompt = self._prompt(sample)
        completion = self.tokenizer(sample.completion, add_special_tokens=False)["input_ids"]
        answer = [*completion, self.tokenizer.eos_token_id]
        room = max(0, self.max_tokens - len(prompt))
        encoded = Encoded(sample, (*prompt, *answer[:room]), start=len(prompt))
        return encoded, max(0, len(answer) - room)

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
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        if self.template == "chat" and not has_template:
            raise InputError(
                "data.template: chat, but this model's tokenizer has no chat template. "
                "Use auto or plain."
            )
        return has_template and self.template != "plain"


def encode_all(encoder: Encoder, samples: Sequence[Sample]) -> tuple[list[Encoded], list[str]]:
    """Encode all samples; also return warnings about completions that were cut.

    Raises:
        InputError: if a prompt alone fills ``data.max_tokens``: no token is left to predict.
    """
    pairs = [encoder.encode(sample) for sample in samples]
    empty = [row.key for row, _ in pairs if not row.answer]
    if empty:
        raise InputError(
            f"data.max_tokens: {encoder.max_tokens} leaves no completion token in {len(empty)} "
            f"rows (first: {', '.join(empty[:3])}): their prompts alone fill it. "
            "Raise data.max_tokens or drop these rows."
        )
    cut = [(row.key, lost) for row, lost in pairs if lost]
    warnings = []
    if cut:
        longest = max(len(row.ids) + lost for row, lost in pairs)
        warnings.append(
            f"data.max_tokens: {encoder.max_tokens} cuts {sum(n for _, n in cut)} tokens off the "
            f"completions of {len(cut)} of {len(pairs)} rows (first: {cut[0][0]}); "
            f"{longest} would keep all."
        )
    return [row for row, _ in pairs], warnings
