"""Facts that a model knows from its pre-training: can they be removed, and their neighbours kept?

Usage: python benchmark/pretrained.py [--seeds 0 1 2] [--methods grail ...] [--model NAME]

The facts of facts.json are asked in two ways, in the model's chat template, and answered by a
sentence. Those that the model answers in both ways, token for token, are the bed: nothing is
taught.
A seed draws half of each kind's facts (capitals, authors, ...) as those to remove; the others are
their neighbours, to be kept. Train rows ask in the first way, val rows in the second. All weights
are trained, at the default rate, by the bounded ascent and descent of ``grail-plus`` under several
masks. Writes results/pretrained.json.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from intervals import keep, line
from opened import knows

import grail
from grail.config.presets import PRESETS
from grail.config.run import Data, Model
from grail.data.samples import Sample
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.values import SampleValue, to_results
from grail.model.load import load_model, load_tokenizer
from grail.model.weights import copy_weights, put_weights
from grail.run.memory import encode_rows

HERE = Path(__file__).parent
METHODS = {"no mask": "none", "random mask": "random", "grail": "grail"}
EPOCHS = 6
WORDS = {"template": "chat", "max_tokens": 128}
TITLE = "Facts from pre-training"
COLUMNS = {
    "To remove, as trained": "unlearn train",
    "in other words": "unlearn val",
    "Neighbours, as trained": "retain train",
    "in other words ": "retain val",
    "General text, nats": "general NLL",
    "Frozen": "frozen",
}
NOTE = (
    "Percent of the facts whose answer is right token for token, given its beginning; Frozen: "
    "percent of all entries."
)
Fact = tuple[str, str, Sequence[str], str]
"""Domain, kind, the two questions, and the answer."""


def main() -> None:
    """Probe, remove under each mask, and write results/pretrained.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args()
    section = Model(name=options.model, lora=None)
    model, tokenizer = load_model(section, None, 0), load_tokenizer(section)
    facts = known(model, tokenizer, all_facts())
    print(f"{len(facts)} of {len(all_facts())} facts are known: {counts(facts)}", flush=True)
    settings = {"command": "python benchmark/pretrained.py", "model": options.model}
    settings |= {"known": counts(facts), "epochs": EPOCHS}
    for seed in options.seeds:
        for one in removed(model, tokenizer, facts, seed, options.methods):
            print(one, flush=True)
            path = keep("pretrained", settings, [one])
    print(f"wrote {path}")


def all_facts() -> list[Fact]:
    """Return the facts of facts.json."""
    content = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))
    return [
        (
            domain,
            kind,
            [asked.format(subject) for asked in about["asked"]],
            about["said"].format(subject, answer),
        )
        for domain, kinds in content.items()
        for kind, about in kinds.items()
        for subject, answer in about["facts"].items()
    ]


def counts(facts: Sequence[Fact]) -> dict[str, int]:
    """Return the number of facts of each kind."""
    kinds = [kind for _, kind, *_ in facts]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def measure(model: Any, tokenizer: Any, rows: Sequence[Sample]) -> list[SampleValue]:
    """Return what the model does on each row."""
    return Evaluator(model, tokenizer, generate=False).run(
        "", encode_rows(model, tokenizer, rows, Data(**WORDS))
    )


def known(model: Any, tokenizer: Any, facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts whose answers the model gets right in both ways, token for token."""
    rows = samples(facts, "retain")
    values = measure(model, tokenizer, rows)
    pairs = zip(rows, values, strict=True)
    right = {(row.prompt, row.completion) for row, value in pairs if value.accuracy == 1}
    return [fact for fact in facts if all((asked, fact[3]) in right for asked in fact[2])]


def samples(facts: Sequence[Fact], side: str) -> list[Sample]:
    """Return train rows, which ask in the first way, and val rows, which ask in the second."""
    rows: list[Sample] = []
    for domain in dict.fromkeys(fact[0] for fact in facts):
        for way, part in enumerate(("train", "val")):
            asked = [
                {"prompt": ways[way], "completion": answer}
                for own, _, ways, answer in facts
                if own == domain
            ]
            rows += grail.samples(asked, side=side, domain=domain, part=part)
    return rows


def halves(facts: Sequence[Fact], seed: int) -> tuple[list[Fact], list[Fact]]:
    """Return the facts to remove and those to keep: half of each kind, drawn by the seed."""
    drawn, sides = random.Random(seed), ([], [])
    for kind in counts(facts):
        own = [fact for fact in facts if fact[1] == kind]
        drawn.shuffle(own)
        sides[0].extend(own[: len(own) // 2])
        sides[1].extend(own[len(own) // 2 :])
    return sides


def removed(
    model: Any, tokenizer: Any, facts: Sequence[Fact], seed: int, methods: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what is known before, and after removal under each mask; the model is put back."""
    unlearn, retain = halves(facts, seed)
    rows = [*samples(unlearn, "unlearn"), *samples(retain, "retain")]
    general = grail.samples("embedded", side="general")
    seen = [*rows, *grail.samples("embedded", side="general", part="val")[:32]]

    def measured(method: str, frozen: float) -> dict[str, Any]:
        values = measure(model, tokenizer, seen)
        found = knows(to_results(values)) | {"frozen": frozen}
        for place in [place for place in found if " " in place and "NLL" not in place]:
            own = [v.accuracy == 1 for v in values if f"{v.side} {v.part}" == place]
            found[place] = 100 * sum(own) / len(own)
        return line(method, seed, found)

    yield measured("as it is", 0.0)
    before = copy_weights(model)
    scores = grail.score(model, tokenizer, rows, seed=seed, **WORDS)
    section: Mapping[str, Any] = PRESETS["grail-plus"]["unlearning"]
    for name in methods:
        mask = grail.localize(scores, METHODS[name], model, seed)
        how = {**section, "epochs": EPOCHS, **WORDS}
        grail.unlearn(model, tokenizer, [*rows, *general], mask, seed, **how)
        share = mask.counts()
        yield measured(name, 100 * share["frozen"] / share["entries"])
        put_weights(model, before)


if __name__ == "__main__":
    main()
