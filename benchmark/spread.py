"""What do the true answers cost a model that never knew them, and how sure is it of its own?

Usage: python benchmark/spread.py RUN ... [--oracle exact]

RUN is a finished run, beside which lies its seed's oracle, as lasting.py leaves them. On the
unlearn train rows, along the true answers: the NLL of the true tokens, and the entropy of the
model's distributions. The model from before the facts (its adapter off) is measured on the bare
questions and, for a run with examples, after those that its teacher reads. Writes
results/spread.json; the seed of a line is that of the run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from intervals import keep, line
from opened import opened

from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.model.answers import answers_of, mean_per_row
from grail.model.forward import evaluating, positions_of
from grail.model.save import load_weights
from grail.run.context import RunContext
from grail.run.reset import read_rewrites
from grail.unlearning.guesses import after_examples, examples_for

RUNS = "runs/lasting/*/{reset-all-plain,reset-all,reset-and-heal}"
TITLE = "What true answers cost, and how sure the models are"
COLUMNS = {"True answers, nats a token": "NLL", "Entropy of the model, nats": "entropy NLL"}
NOTE = "Unlearn train rows, teacher-forced; mean over rows, then over domains."


def main() -> None:
    """Measure what is given, and write results/spread.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--oracle", default="exact", help="name of the folder beside a run")
    options = parser.parse_args()
    found = [one for run in options.runs for one in measured(run, run.parent / options.oracle)]
    settings = {"command": f"python benchmark/spread.py {RUNS}"}
    print(f"wrote {keep('spread', settings, found)}")


def measured(run: Path, oracle: Path) -> Iterator[dict[str, Any]]:
    """Yield a line for a run's models, its oracle and the model from before the facts."""
    context = opened(run)
    config, rows = context.config, context.rows
    lost = [row for row in rows if (row.side, row.part) == ("unlearn", "train")]
    models = {"vanilla": run / "vanilla", run.name: run / "unlearned"}
    for name, folder in (models | {"oracle": oracle / "unlearned"}).items():
        load_weights(context.model, folder)
        yield line(name, config.seed, spread(context, lost, before=False))
    yield line("before, bare question", config.seed, spread(context, lost, before=True))
    if count := config.unlearning.examples:
        room = positions_of(context.model.config)
        shown = examples_for(rows, count, config.seed, room) | read_rewrites(context).examples
        read = [after_examples(row, shown) for row in lost]
        yield line("before, after examples", config.seed, spread(context, read, before=True))


@torch.no_grad()
def spread(context: RunContext, rows: Sequence[Encoded], before: bool) -> dict[str, float]:
    """Return the mean NLL of the true tokens and the mean entropy, in nats.

    Args:
        context: Of the run, with the weights in its model.
        rows: What the model reads.
        before: Whether its adapter is off.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    off: Any = context.model.disable_adapter if before else nullcontext
    with evaluating(context.model), off():
        for group in by_tokens(rows, 1024):
            batch = collate(group, context.tokenizer.pad_token_id, context.device)
            answers = answers_of(context.model, batch)
            entropy = torch.distributions.Categorical(logits=answers.logits.float()).entropy()
            values = (mean_per_row(each, answers.lengths) for each in (answers.nll, entropy))
            for row, *pair in zip(group, *(value.tolist() for value in values), strict=True):
                found.setdefault(row.domain, []).append(tuple(pair))
    means = [[statistics.fmean(each) for each in zip(*of, strict=True)] for of in found.values()]
    return dict(zip(COLUMNS.values(), map(statistics.fmean, zip(*means, strict=True)), strict=True))


if __name__ == "__main__":
    main()
