"""How many trials make stable sets? Jaccard between two draws of the random labels.

Usage: python benchmark/trials.py RUN ... [--trials 1 3 5 10] [--rows 12]

RUN is a finished run that was taught, whose vanilla model is scored on its first train rows. For
each number of trials the scores are drawn twice, with labels of different seeds. The sets of the
two draws are compared: a side's with itself, those of different sides, and what GRAIL freezes; and
the first draw's with those of ``labels: expected``, which has no draws. Writes results/trials.json;
the seed of a line is that of the run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from intervals import keep, line
from opened import opened

from grail.artifacts import Scores
from grail.config.importance import Importance
from grail.config.localization import Localization
from grail.localization.localizers import make_mask
from grail.localization.overlap import Marks, jaccard
from grail.localization.select import top_per_layer
from grail.model.save import load_weights
from grail.run.context import RunContext
from grail.run.trainings import make_scorer

SEEDS = (0, 1)
K = 0.1
TITLE = "Two draws of the random labels"
COLUMNS = {
    "A side's set": "side",
    "Sets of different sides": "others",
    "What GRAIL freezes": "frozen",
    "A side's set and that of expected labels": "expected",
}
NOTE = (
    "Jaccard index in percent, of the top 10 % of each tensor's entries; two sets drawn at random "
    "have 5."
)
Sides = Mapping[tuple[str, str], Scores]


def main() -> None:
    """Draw, compare, and write results/trials.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--rows", type=int, default=12, help="train rows of each side")
    options = parser.parse_args()
    found = []
    for run in options.runs:
        for one in stability(run, options.trials, options.rows):
            print(one, flush=True)
            found.append(one)
    settings = {"rows a side": options.rows, "draws": len(SEEDS), "k": K, "layer": "tensor"}
    settings["command"] = "python benchmark/trials.py runs/lasting/*/reset-and-heal"
    print(f"wrote {keep('trials', settings, found)}")


def stability(run: Path, trials: Sequence[int], rows: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each number of trials, in percent."""
    context = opened(run)
    load_weights(context.model, run / "vanilla")
    expected = _sets(_scores(context, rows, 0, labels="expected", substitution="targets"))
    for number in trials:
        draws = [_scores(context, rows, seed, trials=number) for seed in SEEDS]
        one, other = map(_sets, draws)
        frozen = [make_mask(sides, Localization(), 0, dict)[0].frozen for sides in draws]
        found = {
            "side": statistics.mean(jaccard(one[side], other[side]) for side in one),
            "others": statistics.mean(jaccard(one[a], other[b]) for a, b in permutations(one, 2)),
            "frozen": jaccard(*frozen),
            "expected": statistics.mean(jaccard(one[side], expected[side]) for side in one),
        }
        name = f"{number} trial{'s' * (number > 1)}"
        yield line(name, context.config.seed, {key: 100 * value for key, value in found.items()})


def _scores(context: RunContext, rows: int, seed: int, **settings: Any) -> Sides:
    section = Importance(**settings)
    scorer = make_scorer(context.model, context.tokenizer, section, seed)
    return {side: scorer.score(members[:rows]) for side, members in context.sides().items()}


def _sets(sides: Sides) -> dict[tuple[str, str], Marks]:
    return {side: top_per_layer(scores.mean_abs, K, "auto") for side, scores in sides.items()}


if __name__ == "__main__":
    main()
