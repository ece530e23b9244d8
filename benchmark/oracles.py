"""Is the unlearned model as far from an oracle as another oracle is? Their outputs on the rows.

Usage: python benchmark/oracles.py [DIR] [--method reset-and-heal]

DIR (default: runs/lasting) has a folder for each seed with the finished runs METHOD and ``exact``:
what lasting.py leaves. Two models are compared by the total variation between their distributions
of the next token, teacher-forced, mean over the answer tokens of a row and then over rows. Two
oracles of different seeds tell how far models lie apart that never saw the rows. Writes
results/oracles.json; the seed of a line is that of the model, not of the oracle it is compared
with, over which the line is a mean.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from intervals import keep, line
from opened import opened
from torch import Tensor

from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.model.answers import answers_of, mean_per_row
from grail.model.save import load_weights
from grail.run.context import RunContext

ORACLE = "exact"
TITLE = "How far from an oracle of another seed"
COLUMNS = {
    "Unlearn, train": "unlearn train",
    "Unlearn, val": "unlearn val",
    "Retain, train": "retain train",
    "Retain, val": "retain val",
}
NOTE = (
    "Total variation in percent (0: the same distribution of the next token, 100: nothing in "
    "common), mean over rows. Each model is compared with the oracles of the other seeds."
)
Outputs = Mapping[str, tuple[Tensor, Tensor]]
"""Kind of row -> probabilities of the next token (K V), and answer tokens per row."""


def main() -> None:
    """Compare what is there, and write results/oracles.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs/lasting"))
    parser.add_argument("--method", default="reset-and-heal")
    options = parser.parse_args()
    found = compared(options.runs, options.method)
    settings = {"command": "python benchmark/oracles.py", "method": options.method}
    print(f"wrote {keep('oracles', settings, found)}")


def compared(runs: Path, method: str) -> list[dict[str, Any]]:
    """Return each model's distance from the oracles of the other seeds."""
    folders = {"another oracle": f"{ORACLE}/unlearned", method: f"{method}/unlearned"}
    folders["vanilla"] = f"{method}/vanilla"
    seeds = sorted(path.parent.parent for path in runs.glob(f"*/{ORACLE}/results.json"))
    seeds = [path for path in seeds if (path / method / "results.json").exists()]
    if len(seeds) < 2:
        raise SystemExit(f"{runs}: {ORACLE} and {method} of two seeds are needed, not {len(seeds)}")
    context = opened(seeds[0] / method)
    made = {
        (path.name, name): outputs(context, path / folder)
        for path in seeds
        for name, folder in folders.items()
    }
    found = []
    for (seed, name), own in made.items():
        oracles = [made[other.name, "another oracle"] for other in seeds if other.name != seed]
        far = [distances(own, oracle) for oracle in oracles]
        means = {kind: statistics.fmean(one[kind] for one in far) for kind in far[0]}
        found.append(line(name, int(seed), means))
    return found


def outputs(context: RunContext, weights: Path) -> Outputs:
    """Return a model's distributions at the answer tokens of all rows, by "SIDE PART"."""
    load_weights(context.model, weights)
    kinds: dict[str, list[Encoded]] = {}
    for row in context.rows:
        kinds.setdefault(f"{row.side} {row.part}", []).append(row)
    return {kind: _outputs(context, rows) for kind, rows in kinds.items()}


@torch.no_grad()
def _outputs(context: RunContext, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    context.model.eval()
    answers = [
        answers_of(context.model, collate(group, context.tokenizer.pad_token_id, context.device))
        for group in by_tokens(rows, 1024)
    ]
    parts = [a.logits.softmax(-1, dtype=torch.float32).half() for a in answers]
    return torch.cat(parts), torch.cat([a.lengths for a in answers])


def distances(one: Outputs, other: Outputs) -> dict[str, float]:
    """Return the total variation in percent of each kind of row."""
    far = {}
    for kind, (ours, lengths) in one.items():
        pairs = zip(ours.split(256), other[kind][0].split(256), strict=True)
        each = torch.cat([(a.float() - b.float()).abs().sum(-1) / 2 for a, b in pairs])
        far[kind] = 100 * float(mean_per_row(each, lengths).mean())
    return far


if __name__ == "__main__":
    main()
