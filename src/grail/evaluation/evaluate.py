"""Run a model over rows and turn what it says into per-sample values and Result rows.

Knows nothing of how the model was made; ``model`` in a row is only a label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grail.config.run import Evaluation
from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.data.samples import Sample
from grail.errors import DivergenceError
from grail.evaluation import fluency, memorization, metrics
from grail.files import write_json
from grail.model.answers import Answers, answers_of, mean_per_row
from grail.model.forward import Policy, device_of, evaluating
from grail.model.generate import TextGenerator
from grail.progress import Tick, silent
from grail.results import Result

BATCH_TOKENS = 1024


@dataclass(frozen=True)
class SampleValue:
    """What was measured on one sample (a line of ``samples.jsonl``).

    Attributes:
        model: "vanilla", "unlearned" or "calibrated".
        key: The sample's key.
        domain: Its domain.
        side: Its side.
        part: Its part.
        row: Its place in the source, from 0.
        accuracy: Teacher-forced token accuracy over the completion, 0-1.
        nll: Mean token NLL over the completion, nats.
        tokens: Completion tokens, end token included.
        extraction: Extraction strength, 0-1 (this and the next three: ``memorization``).
        min_k: Min-K%, nats.
        min_k_plus_plus: Min-K%++, in standard deviations.
        zlib: Summed NLL per compressed byte of the completion, nats.
        rouge_l: ROUGE-L of the greedy generation, percent; None where nothing was generated.
        repetition: Its share of repeated 4-grams, 0-1; None likewise.
        compression: Its compressed over its raw bytes; None likewise.
        prompt: Only with ``evaluation.show_text``, as the two below.
        completion: The true completion.
        generation: The greedy generation.
    """

    model: str
    key: str
    domain: str
    side: str
    part: str
    row: int
    accuracy: float
    nll: float
    tokens: int
    extraction: float
    min_k: float
    min_k_plus_plus: float
    zlib: float
    rouge_l: float | None = None
    repetition: float | None = None
    compression: float | None = None
    prompt: str | None = None
    completion: str | None = None
    generation: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the line, without what was not measured or must not be shown."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Evaluator:
    """Measures a model on rows.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        settings: The ``evaluation`` section.
    """

    model: Policy
    tokenizer: Any
    settings: Evaluation

    def run(self, label: str, rows: Sequence[Encoded], tick: Tick = silent) -> list[SampleValue]:
        """Return one value per row, in the order of ``rows``.

        One teacher-forced pass gives all that needs no text; ROUGE-L, repetition and compression
        need a greedy generation: of rows with a side (not of general text), but held-out ones. It
        begins where the first pass saw greedy decoding leave the true completion.

        Raises:
            DivergenceError: if a row's NLL is not finite: the model's weights are broken.
        """
        asked = asked_of(rows, self.settings)
        total = len(rows) + len(asked)
        values, known = self._read(label, rows, total, tick)
        for row, text in self._generations(asked, known, len(rows), total, tick).items():
            values[row] = self._with_text(values[row], row.sample, text)
        return [values[row] for row in rows]

    def retain_success(self, rows: Sequence[Encoded], tick: Tick = silent) -> float:
        """Return RS in percent on retain rows, the mean over their domains."""
        domains: dict[str, list[float]] = {}
        for group, answers in self._answers("retained", rows, len(rows), tick):
            for row, accuracy in zip(group, answers.accuracy.tolist(), strict=True):
                domains.setdefault(row.domain, []).append(accuracy)
        return metrics.mean([metrics.retain_success(own) for own in domains.values()])

    def _answers(
        self, label: str, rows: Sequence[Encoded], total: int, tick: Tick
    ) -> Iterator[tuple[list[Encoded], Answers]]:
        """Yield batches of rows with what the model says about them."""
        done = 0
        for group in by_tokens(rows, BATCH_TOKENS):
            batch = collate(group, self.tokenizer.pad_token_id, device_of(self.model))
            with torch.no_grad(), evaluating(self.model):
                answers = answers_of(self.model, batch)
            yield group, answers
            done += len(group)
            tick(done, total, f"{label}: rows read")

    def _read(
        self, label: str, rows: Sequence[Encoded], total: int, tick: Tick
    ) -> tuple[dict[Encoded, SampleValue], dict[Encoded, int]]:
        """Return values, and with how many tokens of its answer each greedy text begins."""
        values: dict[Encoded, SampleValue] = {}
        known: dict[Encoded, int] = {}
        for group, answers in self._answers(label, rows, total, tick):
            nlls = mean_per_row(answers.nll, answers.lengths).tolist()
            read = (group, nlls, answers.accuracy.tolist(), _per_row(answers))
            for row, nll, accuracy, tokens in zip(*read, strict=True):
                _check_finite(label, row.key, nll)
                values[row] = self._value(label, row, accuracy, nll, tokens)
                known[row] = int(tokens[0].long().cumprod(0).sum())
        return values, known

    def _value(
        self, label: str, row: Encoded, accuracy: float, nll: float, tokens: Sequence[Tensor]
    ) -> SampleValue:
        hits, nlls, means, deviations = tokens
        share = self.settings.min_k
        said = self.tokenizer.decode(row.answer, skip_special_tokens=True)  # may have been cut
        return SampleValue(
            model=label,
            key=row.key,
            domain=row.domain,
            side=row.side,
            part=row.part,
            row=row.sample.row,
            accuracy=accuracy,
            nll=nll,
            tokens=len(row.answer),
            extraction=memorization.extraction_strength(hits),
            min_k=memorization.min_k(nlls, share),
            min_k_plus_plus=memorization.min_k_plus_plus(nlls, means, deviations, share),
            zlib=memorization.zlib_ratio(nlls, said),
        )

    def _generations(
        self,
        rows: Sequence[Encoded],
        known: Mapping[Encoded, int],
        before: int,
        total: int,
        tick: Tick,
    ) -> dict[Encoded, str]:
        """Continue the prompts greedily."""

        def say(done: int) -> None:
            tick(before + done, total, "answers generated")

        how = self.settings
        generator = TextGenerator(self.model, self.tokenizer, how.max_new_tokens, how.batch_size)
        texts = generator.texts(rows, say, known=known)
        return dict(zip(rows, texts, strict=True))

    def _with_text(self, value: SampleValue, sample: Sample, generation: str) -> SampleValue:
        value = replace(
            value,
            rouge_l=metrics.rouge_l(sample.completion, generation),
            repetition=fluency.repetition(generation),
            compression=fluency.compression(generation),
        )
        if not self.settings.show_text:
            return value
        return replace(
            value, prompt=sample.prompt, completion=sample.completion, generation=generation
        )


def asked_of(rows: Sequence[Encoded], settings: Evaluation) -> list[Encoded]:
    """Return the rows whose prompts are continued: those with a side, but held-out ones."""
    told = [row for row in rows if row.side != "general" and row.part != HELD_OUT]
    return told if settings.generate else []


def write_values(
    path: Path,
    values: Sequence[SampleValue],
    inputs: str,
    about: Mapping[str, float] | None = None,
) -> None:
    """Keep what was measured on one model, with the digest of its inputs and how it was made."""
    kept = [value.as_json() for value in values]
    write_json(path, {"inputs": inputs, **(about or {}), "values": kept})


def read_values(path: Path, inputs: str) -> list[SampleValue] | None:
    """Return what ``write_values`` kept; None if it is absent, damaged or of other inputs."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["inputs"] != inputs:
            return None
        return [SampleValue(**value) for value in found["values"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def to_results(values: Sequence[SampleValue]) -> list[Result]:
    """Average per-sample values into the rows of ``results.json``, in order of first appearance.

    Held-out rows are there to compare with, and make no rows of their own.
    """
    groups: dict[tuple[str, str, str, str], list[SampleValue]] = {}
    for value in (value for value in values if value.part != HELD_OUT):
        groups.setdefault((value.model, value.domain, value.side, value.part), []).append(value)
    return [
        Result(*place, metric, number, len(members))
        for place, members in groups.items()
        for metric, number in _measured(place[2], members).items()
    ]


def _per_row(answers: Answers) -> Iterator[tuple[Tensor, ...]]:
    """Yield hits, NLLs and the two moments of log p of each row's tokens, off the accelerator."""
    found = (answers.right, answers.nll, *answers.moments)
    lengths = answers.lengths.tolist()
    return zip(*(tokens.cpu().split(lengths) for tokens in found), strict=True)


def _check_finite(label: str, key: str, nll: float) -> None:
    if not math.isfinite(nll):
        raise DivergenceError(
            f"the NLL of the {label} model on {key} is {nll}: its weights are broken. Delete its "
            f"folder, lower the learning rate that made it (vanilla.learning_rate or "
            "unlearning.learning_rate) and run again."
        )


def _measured(side: str, values: Sequence[SampleValue]) -> dict[str, float]:
    accuracies, nlls = [v.accuracy for v in values], [v.nll for v in values]
    rouges = [v.rouge_l for v in values if v.rouge_l is not None]
    repeated = [v.repetition for v in values if v.repetition is not None]
    success = {
        "unlearn": {"US": metrics.unlearn_success(accuracies)},
        "retain": {"RS": metrics.retain_success(accuracies)},
    }.get(side, {})
    text = {"NLL": metrics.mean(nlls), "PPL": metrics.perplexity(nlls)}
    generated = {"ROUGE-L": metrics.mean(rouges)} if rouges else {}
    if not success:
        return {**text, **generated}
    memorized = {
        "ES": 100.0 * metrics.mean([v.extraction for v in values]),
        "Prob": 100.0 * metrics.mean([memorization.probability(nll) for nll in nlls]),
    }
    fluent = {"Repetition": 100.0 * metrics.mean(repeated)} if repeated else {}
    return {**success, **text, **generated, **memorized, **fluent}
