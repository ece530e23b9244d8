"""What do the frozen and the free part of a model retrieve by themselves?

Usage: python benchmark/parts.py RUN ... [--localizers grail random magnitude]

RUN is a finished run that taught an adapter (such as runs/lasting/SEED/reset-and-heal). A localizer
splits the adapter's entries in two by the run's scores. Each part is left alone in the model: its
entries keep what they learnt, all others go back to where they were before the teaching. No
training follows. Writes results/parts.json; the seed of a line is that of the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from intervals import keep, line
from opened import knows, opened

from grail.artifacts import read_scores
from grail.config.localization import Localization
from grail.errors import InputError
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.values import to_results
from grail.localization.localizers import make_mask
from grail.model.save import load_weights
from grail.model.weights import copy_weights, put_weights
from grail.unlearning.reset import reset_weights

TITLE = "What each part retrieves by itself"
COLUMNS = {
    "Entries": "entries",
    "Unlearn, train": "unlearn train",
    "Unlearn, val": "unlearn val",
    "Retain, train": "retain train",
    "Retain, val": "retain val",
    "General text, nats": "general NLL",
}
NOTE = (
    "Percent of answer tokens that the model gets right, teacher-forced, mean of the domains; "
    "Entries: percent of the adapter's entries that keep what they learnt."
)
GENERAL = 32
"""General val rows that are measured."""


def main() -> None:
    """Measure every part of every run, and write results/parts.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    names = ("grail", "random", "magnitude")
    parser.add_argument("--localizers", nargs="+", choices=names, default=list(names))
    options = parser.parse_args()
    found = [one for run in options.runs for one in parts(run, options.localizers)]
    settings = {"command": "python benchmark/parts.py runs/lasting/*/reset-and-heal"}
    print(f"wrote {keep('parts', settings, found)}")


def parts(run: Path, localizers: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what the whole, nothing, and each part of a run's vanilla model knows."""
    context = opened(run)
    model, seed = context.model, context.config.seed
    general = [row for row in context.general if row.part == "val"][:GENERAL]
    evaluator = Evaluator(model, context.tokenizer, generate=False)

    def measured(method: str, share: float) -> dict[str, Any]:
        values = evaluator.run("", [*context.rows, *general])
        return line(method, seed, {"entries": share} | knows(to_results(values)))

    load_weights(model, run / "vanilla")
    vanilla, before = copy_weights(model), context.before()
    if before is None:
        raise InputError(f"{run}: what the model was before the facts is not known.")
    files = sorted((run / "scores").glob("*.safetensors"))
    sides = {tuple(file.stem.split(".", 1)): read_scores(file) for file in files}
    yield measured("all", 100.0)
    put_weights(model, before)
    yield measured("none", 0.0)
    for name in localizers:
        frozen = make_mask(sides, Localization(method=name), seed, lambda: vanilla)[0].frozen
        for part, kept in (("frozen", frozen), ("free", {n: ~b for n, b in frozen.items()})):
            put_weights(model, reset_weights(vanilla, before, kept, 1.0, seed))
            total = sum(bits.numel() for bits in kept.values())
            share = 100 * sum(int(bits.sum()) for bits in kept.values()) / total
            yield measured(f"{name}: {part}", share)


if __name__ == "__main__":
    main()
