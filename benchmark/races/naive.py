"""The obvious ways, one row at a time: what grail's batched ways are raced against.

Written with transformers alone, as scripts in the field do it; the definitions are grail's, so that
the numbers must agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grail.artifacts import Scores
from grail.config.run import Evaluation
from grail.data.batches import IGNORED
from grail.data.encode import Encoded
from grail.data.labels import RandomLabels
from grail.evaluation import metrics
from grail.model.forward import Policy, device_of, trainable
from grail.model.generate import generate


def padded(
    rows: Sequence[Encoded], pad: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Return input_ids, attention_mask and labels (B, T), padded on the right to the longest row.

    Labels stand where the tokens stand, as transformers wants them: the model shifts them.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    attention, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for b, row in enumerate(rows):
        length = len(row.ids)
        ids[b, :length], attention[b, :length] = torch.tensor(row.ids), 1
        goal = row.answer if row.targets is None else row.targets
        labels[b, row.start : length] = torch.tensor(goal)
    batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    return {name: value.to(device) for name, value in batch.items()}


def scores(model: Policy, rows: Sequence[Encoded], labels: RandomLabels, trials: int) -> Scores:
    """Score by one backward pass per row and trial; every gradient is added up on the CPU.

    KnowUnDo's procedure: the gradients of a row's trials are averaged, and what their entries come
    to is averaged over rows.
    """
    parameters = trainable(model)
    sums = [{n: torch.zeros(p.shape) for n, p in parameters.items()} for _ in range(3)]
    for row in rows:
        added = {name: torch.zeros(p.shape) for name, p in parameters.items()}
        for trial in range(trials):
            batch = _one(labels.draw(row, trial), model)
            model.zero_grad()
            model(**batch).loss.backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    added[name] += parameter.grad.detach().to("cpu", torch.float32, copy=True)
        for name, gradient in added.items():
            mean = gradient / trials
            for own, value in zip(sums, (mean.abs(), mean, mean.square()), strict=True):
                own[name] += value
    model.zero_grad()
    means = [{name: value / len(rows) for name, value in own.items()} for own in sums]
    return Scores(*means, samples=len(rows))


@dataclass(frozen=True)
class Value:
    """What was measured on one row, in grail's units."""

    nll: float
    accuracy: float
    rouge_l: float | None


@torch.no_grad()
def values(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Encoded],
    settings: Evaluation,
) -> dict[str, Value]:
    """Measure every row by itself: a forward pass per metric, then a generation."""
    model.eval()
    return {
        row.key: Value(
            _nll(model, row),
            _accuracy(model, row),
            _rouge_l(model, tokenizer, row, settings) if settings.generate else None,
        )
        for row in rows
    }


def table(rows: Sequence[Encoded], found: Mapping[str, Value]) -> dict[str, float]:
    """Return {"domain.side.part.metric": mean}, as a run's results have it."""
    places: dict[tuple[str, str, str], list[Value]] = {}
    for row in rows:
        places.setdefault((row.domain, row.side, row.part), []).append(found[row.key])
    means: dict[str, float] = {}
    for place, own in places.items():
        success = ("US", metrics.unlearn_success), ("RS", metrics.retain_success)
        name, rate = success[place[1] == "retain"]
        rouges = [value.rouge_l for value in own if value.rouge_l is not None]
        here = {name: rate([value.accuracy for value in own])}
        here["NLL"] = metrics.mean([value.nll for value in own])
        here |= {"ROUGE-L": metrics.mean(rouges)} if rouges else {}
        means |= {".".join((*place, metric)): value for metric, value in here.items()}
    return means


def _one(row: Encoded, model: Policy) -> dict[str, Tensor]:
    return padded([row], 0, device_of(model))


def _nll(model: Policy, row: Encoded) -> float:
    return float(model(**_one(row, model)).loss)


def _accuracy(model: Policy, row: Encoded) -> float:
    batch = _one(row, model)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    guesses = logits[0, row.start - 1 : -1].argmax(-1)
    return float((guesses == batch["labels"][0, row.start :]).float().mean())


def _rouge_l(model: Policy, tokenizer: Any, row: Encoded, settings: Evaluation) -> float:
    most = min(settings.max_new_tokens, len(row.answer) + len(row.answer) // 2 + 4)
    (ids,) = generate(model, [row.ids[: row.start]], [most], tokenizer)
    truth, text = (tokenizer.decode(t, skip_special_tokens=True) for t in (row.answer[:most], ids))
    return metrics.rouge_l(truth, text)
