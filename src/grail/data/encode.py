"""Samples as token ids; knows nothing of models and losses."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from grail.config.run import DATE
from grail.data.samples import Place, Sample
from grail.errors import InputError

_MARK = "q7VxJ2mZ"  # an answer that no template takes apart, and no row holds
_WRITTEN = re.compile(r"\w[^\w\s]|[^\w\s]\w")  # letters and signs: neither a word nor spaces
_PLAIN = "Use data.template: plain"


@dataclass(frozen=True)
class Encoded:
    """A sample in token ids.

    Attributes:
        sample: The sample.
        ids: The prompt, the completion and the end token.
        start: ``ids[start:]`` is the completion with its end token.
        targets: Substituted labels for ``ids[start:]``; None: the true ones.
        end: The token that ends the completion; None: not known.
    """

    sample: Sample
    ids: tuple[int, ...]
    start: int
    targets: tuple[int, ...] | None = field(default=None, compare=False)
    end: int | None = None

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

    @property
    def words(self) -> tuple[int, ...]:
        """The completion's token ids without the end token."""
        return self.answer[:-1] if self.answer[-1:] == (self.end,) else self.answer


@dataclass(frozen=True)
class Encoder:
    """Turns samples into ids with one tokenizer and template (``data.template``).

    With a chat template, prompt and completion are rendered and tokenized as one conversation. The
    answer is what stands there from the completion's first letter to the first control token after
    it: whatever the template puts before an answer belongs to the prompt.

    Attributes:
        tokenizer: The tokenizer.
        template: ``auto``, ``chat`` or ``plain``.
        max_tokens: The most tokens of a row.
        date: What a chat template is told when it asks for the date (ISO 8601).
        endless: Keys of the rows that the template did not end, and eos_token does.
    """

    tokenizer: Any
    template: str
    max_tokens: int
    date: str = DATE
    endless: list[str] = field(default_factory=list, compare=False)

    def encode(self, sample: Sample) -> tuple[Encoded, int]:
        """Return the sample in ids, and how many completion tokens ``max_tokens`` cut off.

        Raises:
            InputError: if the chat template refuses the row, or does not show where its answer
                begins and ends; if the row's text holds a control token.
        """
        self._check_text(sample)
        prompt, answer = self._chat(sample) if self._source else self._plain(sample)
        if not prompt:
            raise InputError(f"{sample.key}: the tokenizer makes no token of this row's prompt.")
        room = max(0, self.max_tokens - len(prompt))
        encoded = Encoded(sample, (*prompt, *answer[:room]), start=len(prompt), end=answer[-1])
        return encoded, max(0, len(answer) - room)

    def opening(self, stem: str) -> list[int]:
        """Return the ids of a conversation as far as the first words of its first question.

        Without a template and without words it is the token that begins a text, or that ends one.
        """
        if self._source:
            asked = self._render(Sample(*Place("", "", ""), 0, _MARK, ""), "")
            return self._ids(asked.partition(_MARK)[0] + stem)
        marked, own = self.tokenizer(stem)["input_ids"], self._ids(stem)
        ahead = next((n for n in range(len(marked)) if marked[n : n + len(own)] == own), 0)
        return [*marked[:ahead], *own] or marked[:1] or [self.tokenizer.eos_token_id]

    @cached_property
    def _source(self) -> str:
        """The chat template's text, with its clock stopped; "" if none is used."""
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        if self.template == "chat" and not has_template:
            raise InputError(
                "data.template: chat, but this model's tokenizer has no chat template. "
                "Use auto or plain."
            )
        if not has_template or self.template == "plain":
            return ""
        try:
            return _stop_clock(self.tokenizer.get_chat_template(), self.date)
        except ValueError as error:
            raise InputError(f"{self.name} has no default ({error}). {_PLAIN}.") from error

    @cached_property
    def _control(self) -> dict[str, int]:
        """Text -> id of each token that is no text: special ones, and those the template writes."""
        tokenizer, added = self.tokenizer, getattr(self.tokenizer, "added_tokens_decoder", {})
        return dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)) | {
            token.content: number
            for number, token in added.items()
            if token.special or (token.content in self._source and _WRITTEN.search(token.content))
        }

    @cached_property
    def _marks(self) -> set[int]:
        """The control tokens but for the one of text that the tokenizer does not know."""
        tokenizer = self.tokenizer
        return set(self._control.values()) - ({tokenizer.unk_token_id} - {tokenizer.eos_token_id})

    @property
    def name(self) -> str:
        """The chat template in words."""
        return f"the chat template of {getattr(self.tokenizer, 'name_or_path', '') or 'the model'}"

    def _check_text(self, sample: Sample) -> None:
        """Refuse a row in which a control token is written out: it would act as one."""
        turns = [*(text for _, text in sample.context), sample.prompt, sample.completion]
        text = "\0".join([*turns, *sample.paraphrases])
        found = next((token for token in self._control if token in text), None)
        if found is not None:
            raise InputError(
                f"{sample.key}: its text holds {found}, which is a control token of this model's "
                "tokenizer and no text. Write it otherwise, or drop the row."
            )

    def _chat(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Return the ids of prompt and answer, taken from the whole conversation."""
        before, *after = self._render(sample, _MARK).split(_MARK)
        text, begin = self._render(sample, sample.completion), len(before)
        written = text[begin : len(text) - len("".join(after))]
        if len(after) == 1 and text.startswith(before) and text.endswith(after[0]):
            ids, start = self._tokens(text, begin)
            if start is not None and written.strip() == sample.completion.strip():
                end = next((n for n in range(start, len(ids)) if ids[n] in self._marks), None)
                if end is not None:
                    return ids[:start], ids[start : end + 1]
                self.endless.append(sample.key)
                ids, _ = self._tokens(text[: begin + len(written)], begin)
                return ids[:start], [*ids[start:], self.tokenizer.eos_token_id]
        raise InputError(
            f"{sample.key}: {self.name} does not write this row's answer as it is, so that it "
            f"cannot be told from the prompt. {_PLAIN}, or change the row's answer."
        )

    def _render(self, sample: Sample, answer: str) -> str:
        turns = [*sample.context, ("user", sample.prompt), ("assistant", answer)]
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self._source, tokenize=False
            )
        except Exception as error:  # templates raise what their authors chose
            raise InputError(
                f"{sample.key}: {self.name} refuses this row ({error}). "
                f"{_PLAIN}, or change the row's turns."
            ) from error

    def _plain(self, sample: Sample) -> tuple[list[int], list[int]]:
        """Return the ids of prompt and answer, joined by a blank line.

        The completion's tokens are those that it has after the prompt: alone, some tokenizers put
        a space before it. If one of them reaches into the prompt, they are its own. What the
        tokenizer puts before a text is kept, and what it puts after one is not.
        """
        turns = [*(text for _, text in sample.context), sample.prompt]
        text, end = "\n\n".join(turns) + "\n\n", self.tokenizer.eos_token_id
        prompt, marked = self._ids(text), self.tokenizer(text)["input_ids"]
        ids, start = self._tokens(text + sample.completion, len(text))
        spelt = self.tokenizer.decode(ids[start:], clean_up_tokenization_spaces=False)
        if start is None or (ids[:start] != prompt and spelt != sample.completion):
            ids, start = self._ids(sample.completion), 0
        stops = range(len(marked), len(prompt) - 1, -1)
        stop = next((n for n in stops if marked[n - len(prompt) : n] == prompt), len(marked))
        return marked[:stop], [*ids[start:], end]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _tokens(self, text: str, begin: int) -> tuple[list[int], int | None]:
        """Return a text's ids, and the first that spells anything of ``text[begin:]``.

        A tokenizer without offsets must begin a token there; else None.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            ids, head = self._ids(text), self._ids(text[:begin])
            return ids, len(head) if ids[: len(head)] == head else None
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = found["input_ids"]
        for start, (first, last) in enumerate(found["offset_mapping"]):
            if last > begin and not (first < begin and ids[start] in self._marks):
                return ids, start  # a control token may swallow the spaces after it
        return ids, None


def _stop_clock(template: str, date: str) -> str:
    """Let ``strftime_now`` of a chat template be a macro that writes a fixed date.

    transformers gives a template text alone, and no function in the place of its own.
    """
    if "strftime_now" not in template:
        return template
    day, steps = datetime.fromisoformat(date), ""
    for letter in "aAbBcCdDeFGhHIjmMpRSTuUVwWxXyYzZ":
        text = day.strftime(f"%{letter}")
        for written, value in ((f"%-{letter}", text.lstrip("0 ") or "0"), (f"%{letter}", text)):
            steps += f"|replace('{written}', '{value}')"
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}"
    return f"{macro}\n{template}"  # the line feed after a block is not written


def paraphrased(sample: Sample) -> list[Sample]:
    """Return the sample asked in each of its other words."""
    return [replace(sample, prompt=prompt) for prompt in sample.paraphrases]


def encode_all(encoder: Encoder, samples: Sequence[Sample]) -> tuple[list[Encoded], list[str]]:
    """Encode all samples; also return warnings about completions and paraphrases that were cut.

    Raises:
        InputError: if a prompt alone fills ``data.max_tokens``: no token is left to predict.
    """
    pairs = [encoder.encode(sample) for sample in samples]
    empty = [row.key for row, _ in pairs if not row.answer]
    if empty:
        raise InputError(
            f"data.max_tokens: {encoder.max_tokens} leaves no completion token in {len(empty)} "
            f"{'row' if len(empty) == 1 else 'rows'} (first: {', '.join(empty[:3])}): the prompt "
            "alone fills it. Raise data.max_tokens or drop these rows."
        )
    warnings = []
    asked = [other for sample in samples for other in paraphrased(sample)]
    full = [other.key for other in asked if not encoder.encode(other)[0].answer]
    if full:
        warnings.append(
            f"data.max_tokens: {encoder.max_tokens} leaves no completion token after {len(full)} "
            f"of {len(asked)} paraphrases (first: one of {full[0]}): an audit leaves these out. "
            "Raise data.max_tokens or shorten them."
        )
    if encoder.endless:
        warnings.append(
            f"{encoder.name} writes no token that ends an answer: eos_token is put there. A model "
            "that was taught with this template alone does not know it; data.template: plain asks "
            "without the template."
        )
    cut = [(row.key, lost) for row, lost in pairs if lost]
    if cut:
        longest = max(len(row.ids) + lost for row, lost in pairs)
        warnings.append(
            f"data.max_tokens: {encoder.max_tokens} cuts {sum(n for _, n in cut)} tokens off the "
            f"completions of {len(cut)} of {len(pairs)} rows (first: {cut[0][0]}); "
            f"{longest} would keep all."
        )
    return [row for row, _ in pairs], warnings
