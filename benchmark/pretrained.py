"""Facts that a model knows from its pre-training: can they be removed, and their neighbours kept?

Usage: python benchmark/pretrained.py [--seeds 0 1 2] [--methods grail ...] [--model NAME]

The facts of facts.json are asked in two ways, in the chat template behind two examples of the
form. Those that the model answers in both ways, token for token, are the bed: nothing is taught.
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
from grail.config.run import Model
from grail.data.samples import Sample
from grail.model.load import load_model, load_tokenizer
from grail.model.weights import copy_weights, put_weights

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
NOTE = "Percent of answer tokens that the model gets right; Frozen: percent of all entries."
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
        (domain, kind, [asked.format(subject) for asked in about["asked"]], answer)
        for domain, kinds in content.items()
        if domain != "examples"
        for kind, about in kinds.items()
        for subject, answer in about["facts"].items()
    ]


def counts(facts: Sequence[Fact]) -> dict[str, int]:
    """Return the number of facts of each kind."""
    kinds = [kind for _, kind, *_ in facts]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def known(model: Any, tokenizer: Any, facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts whose answers the model gets right in both ways, token for token."""
    right: list[Fact] = []
    for fact in facts:
        rows = samples([fact], "retain")
        results = grail.evaluate(model, tokenizer, rows, generate=False, **WORDS)
        if all(row.value == 100 for row in results.rows if row.metric == "RS"):
            right.append(fact)
    return right


def samples(facts: Sequence[Fact], side: str) -> list[Sample]:
    """Return train rows, which ask in the first way, and val rows, which ask in the second."""
    examples = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))["examples"]
    rows: list[Sample] = []
    for domain in dict.fromkeys(fact[0] for fact in facts):
        for way, part in enumerate(("train", "val")):
            chats = []
            for own, _, asked, answer in facts:
                turns = [*examples[domain], asked[way], answer]
                roles = ("user", "assistant") * (len(turns) // 2)
                chat = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]
                chats += [{"messages": chat}] * (own == domain)
            rows += grail.samples(chats, side=side, domain=domain, part=part)
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
        results = grail.evaluate(model, tokenizer, seen, generate=False, **WORDS)
        return line(method, seed, knows(results.rows) | {"frozen": frozen})

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
