"""Scoring: the batched path against the plain loop, and against an ordinary batched pass.

Usage: python benchmark/scoring.py [--rows 24] [--repeat 3]

Same rows, same model, same precision, same threads, one after the other in one process. The loop is
what is done elsewhere: one sample and trial at a time, one backward pass each. The floor is one
forward and backward pass over the same padded batches that leaves summed gradients only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from machine import write

from grail.config import Importance, Model
from grail.data.encode import Encoded, Encoder, by_tokens, collate
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.data.samples import Sample, read_rows
from grail.importance.score import Scorer, compare
from grail.model import Policy, answer_logits, load, load_tokenizer, token_nll, trainable
from grail.terminal import quiet

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Measure all precisions and write results/scoring.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    quiet()
    measured = [_measure(precision, options.rows, options.repeat) for precision in PRECISIONS]
    ratios = {}
    for line in measured:
        batched = line["samples_per_second"]["batched"]
        for other in ("loop", "floor"):
            name = f"scoring_vs_{other}"
            value = batched / line["samples_per_second"][other]
            ratios[f"{name}_{line['precision']}"] = value
            ratios[name] = min(value, ratios.get(name, value))
    settings = {
        "command": "python benchmark/scoring.py",
        "model": "smollm2-135m, LoRA r 8 on all linear layers",
        "rows": f"{options.rows} embedded rows, both sides and domains in turn, 3 trials each",
        "batch_tokens": Importance().batch_tokens,
        "repeat": options.repeat,
        "value": "median over repeats; the unqualified ratio is the lower of the two precisions",
    }
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    print(f"wrote {write('scoring', settings, measured, ratios)}")


_Raw = argparse.RawDescriptionHelpFormatter


def _measure(precision: str, count: int, repeat: int) -> dict[str, Any]:
    settings = Model.model_validate({"dtype": precision})
    model, tokenizer = load(settings, None, seed=0), load_tokenizer(settings)
    _move_off_zero(model)
    rows = _rows(Encoder(tokenizer, "plain", 256), count)
    labels = RandomLabels(
        ordinary_tokens(len(tokenizer), tokenizer.all_special_ids), "inputs_and_targets", 0
    )

    def scorer(gradients: str) -> Scorer:
        how = Importance.model_validate({"gradients": gradients})
        return Scorer(model, how, labels, tokenizer.pad_token_id)

    ways = {
        "batched": lambda: scorer("batched").score(rows),
        "loop": lambda: scorer("loop").score(rows),
        "floor": lambda: _floor(scorer("batched"), rows),
    }
    agreement = compare(ways["batched"](), ways["loop"]())  # also warms both up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            seconds[name].append(_seconds(way))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "precision": precision,
        "samples": len(rows),
        "tokens": 3 * sum(len(row.ids) for row in rows),
        "seconds": seconds,
        "samples_per_second": {name: len(rows) / value for name, value in medians.items()},
        "largest_relative_difference": agreement.worst,
        "at": agreement.name,
    }


def _move_off_zero(model: Policy) -> None:
    """A fresh adapter has B = 0, so that gradients of A vanish; a trained one has not."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def _rows(encoder: Encoder, count: int) -> list[Encoded]:
    places = [(d, s) for d in ("privacy", "copyright") for s in ("unlearn", "retain")]
    lists = [
        [
            Sample(domain, side, "train", number, row["prompt"], row["completion"])
            for number, (_, row) in enumerate(read_rows("embedded", (domain, side, "train")))
        ]
        for domain, side in places
    ]
    mixed = [sample for group in zip(*lists, strict=True) for sample in group]
    return [encoder.encode(sample)[0] for sample in mixed[:count]]


def _floor(scorer: Scorer, rows: Sequence[Encoded]) -> None:
    """Summed gradients of the same trials in the same batches: what any batched method must pay."""
    for group in by_tokens(rows, scorer.settings.batch_tokens, copies=scorer.trials):
        copies = [scorer.labels.draw(row, t) for row in group for t in range(scorer.trials)]
        batch = collate(copies, scorer.pad)
        logits = answer_logits(scorer.model, batch.ids, batch.attention, batch.at)
        token_nll(logits, batch.targets[batch.at]).sum().backward()
        for parameter in trainable(scorer.model).values():
            parameter.grad = None


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
