"""Evaluator: one model over rows; knows nothing of how the model was made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.errors import DivergenceError
from grail.evaluation import fluency, memorization, metrics
from grail.evaluation.values import SampleValue
from grail.model.answers import Answers, answers_of
from grail.model.forward import Policy, device_of, evaluating
from grail.model.generate import TextGenerator, most_new
from grail.progress import Tick, silent

BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Evaluator:
    """Measures a model on rows: ``Evaluator(model, tokenizer).run(name, rows)``.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        generate: Whether prompts are continued, for ROUGE-L, repetition and compression.
        batch_size: Prompts that are continued at once.
        max_new_tokens: The most tokens of a generation.
        min_k: Share (0-1) of a row's least probable tokens that Min-K% and Min-K%++ read.
        show_text: Whether values carry prompt, completion and generation.
    """

    model: Policy
    tokenizer: Any
    generate: bool = True
    batch_size: int = 32
    max_new_tokens: int = 96
    min_k: float = 0.2
    show_text: bool = False

    def run(self, name: str, rows: Sequence[Encoded], tick: Tick = silent) -> list[SampleValue]:
        """Return one value per row, in the order of ``rows``; ``name`` is the model's.

        One teacher-forced pass measures all that needs no text; then the prompts of
        ``rows_to_continue`` are continued greedily, each from the token where the first pass saw
        greedy decoding leave the true completion.

        Raises:
            DivergenceError: if a row's NLL is not finite: the model's weights are broken.
        """
        continued = rows_to_continue(rows) if self.generate else []
        total = len(rows) + len(continued)
        values, right = dict[Encoded, SampleValue](), dict[Encoded, int]()
        for group, answers in self._answers(name, rows, total, tick):
            for row, tokens in zip(group, _per_row(answers), strict=True):
                values[row] = self._value(name, row, tokens)
                right[row] = int(tokens.hits.long().cumprod(0).sum())

        def report(done: int) -> None:
            tick(len(rows) + done, total, "answers generated")

        generator = TextGenerator(self.model, self.tokenizer, self.max_new_tokens, self.batch_size)
        texts = generator.texts(continued, report, known=right)
        for row, text in zip(continued, texts, strict=True):
            values[row] = self._with_text(values[row], row, text)
        return [values[row] for row in rows]

    def retain_success(self, rows: Sequence[Encoded], tick: Tick = silent) -> float:
        """Return RS in percent on retain rows, the mean over their domains."""
        domains: dict[str, list[float]] = {}
        for group, answers in self._answers("retained", rows, len(rows), tick):
            for row, accuracy in zip(group, answers.accuracy.tolist(), strict=True):
                domains.setdefault(row.domain, []).append(accuracy)
        return metrics.mean([metrics.retain_success(values) for values in domains.values()])

    def _answers(
        self, name: str, rows: Sequence[Encoded], total: int, tick: Tick
    ) -> Iterator[tuple[list[Encoded], Answers]]:
        """Yield batches of rows with the model's answers."""
        done = 0
        for group in by_tokens(rows, BATCH_TOKENS):
            batch = collate(group, self.tokenizer.pad_token_id, device_of(self.model))
            with torch.no_grad(), evaluating(self.model):
                answers = answers_of(self.model, batch)
            yield group, answers
            done += len(group)
            tick(done, total, f"{name}: rows read")

    def _value(self, name: str, row: Encoded, tokens: _Tokens) -> SampleValue:
        nll = float(tokens.nll.mean())
        if not math.isfinite(nll):
            raise DivergenceError(
                f"the NLL of the {name} model on {row.key} is {nll}: its weights are broken. "
                "Delete its folder, lower the learning rate that made it (teach.learning_rate or "
                "unlearning.learning_rate) and run again."
            )
        answer = self.tokenizer.decode(row.words, skip_special_tokens=True)  # may have been cut
        return SampleValue(
            model=name,
            key=row.key,
            domain=row.domain,
            side=row.side,
            part=row.part,
            row=row.sample.row,
            accuracy=float(tokens.hits.float().mean()),
            nll=nll,
            tokens=len(row.answer),
            extraction=memorization.extraction_strength(tokens.hits),
            min_k=memorization.min_k(tokens.nll, self.min_k),
            min_k_plus_plus=memorization.min_k_plus_plus(*tokens[1:], self.min_k),
            zlib=memorization.zlib_ratio(tokens.nll, answer),
        )

    def _with_text(self, value: SampleValue, row: Encoded, text: str) -> SampleValue:
        value = replace(
            value,
            rouge_l=recall(self.tokenizer, row, text, self.max_new_tokens),
            repetition=fluency.repetition(text),
            compression=fluency.compression(text),
        )
        if not self.show_text:
            return value
        sample = row.sample
        return replace(value, prompt=sample.prompt, completion=sample.completion, generation=text)


def recall(tokenizer: Any, row: Encoded, text: str, max_new_tokens: int) -> float:
    """Return ROUGE-L (percent) of a generation against the part of the truth that it could hold.

    A generation ends after ``most_new(row, max_new_tokens)`` tokens; so does the truth here.
    Perfect recall is 100, however long the completion.
    """
    truth = row.words[: most_new(row, max_new_tokens)]
    return metrics.rouge_l(tokenizer.decode(truth, skip_special_tokens=True), text)


def rows_to_continue(rows: Sequence[Encoded]) -> list[Encoded]:
    """Return the rows whose prompts are continued: no general text and no held-out rows."""
    return [row for row in rows if row.side != "general" and row.part != HELD_OUT]


class _Tokens(NamedTuple):
    """A row's answer tokens: right or not; NLL, and mean and deviation of log p there (nats)."""

    hits: Tensor
    nll: Tensor
    mean: Tensor
    deviation: Tensor


def _per_row(answers: Answers) -> Iterator[_Tokens]:
    """Yield the tokens of each row, off the accelerator."""
    lengths = answers.lengths.tolist()
    columns = (answers.right, answers.nll, *answers.moments)
    return map(_Tokens, *(column.cpu().split(lengths) for column in columns))
