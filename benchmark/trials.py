"""How many trials make stable sets? Jaccard between two draws of the random labels.

Usage: python benchmark/trials.py RUN [--config FILE] [--trials 1 3 5 10] [--rows 16] [--work DIR]

RUN is a finished run (or the shared folder of a comparison) whose vanilla model is scored; FILE
says which rows (default: experiments/pair.yaml). For each number of trials the scores are drawn
twice, and the sets of the two draws are compared: those of each side, and what GRAIL freezes. A
draw that is finished is not drawn again.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

from machine import write

from grail.artifacts import read_mask, read_scores
from grail.cli.main import main as grail
from grail.localization.overlap import jaccard
from grail.localization.select import top_per_layer

HERE = Path(__file__).parent
SEEDS = (0, 1)
K = 0.1


def main() -> None:
    """Draw, compare, and write results/trials.json."""
    options = _options()
    found = [_stability(options, trials) for trials in options.trials]
    settings = {"rows a side": options.rows, "seeds": list(SEEDS), "k": K, "layer": "block"}
    for line in found:
        print(line)
    print(write("trials", settings | {"base": options.config.name}, found, {}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, default=HERE / "experiments" / "pair.yaml")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--work", type=Path, default=Path("runs/trials"))
    return parser.parse_args()


def _stability(options: argparse.Namespace, trials: int) -> dict[str, Any]:
    """Return the mean Jaccard of the sides' sets, within and between sides, and of the mask."""
    draws = [_draw(options, trials, seed) for seed in SEEDS]
    sets = [_sets(folder) for folder in draws]
    same = {side: jaccard(sets[0][side], sets[1][side]) for side in sets[0]}
    other = [jaccard(sets[0][a], sets[1][b]) for a, b in combinations(sets[0], 2)]
    frozen = [read_mask(folder / "mask.safetensors").frozen for folder in draws]
    return {
        "trials": trials,
        "jaccard of a side with itself": same,
        "mean": statistics.mean(same.values()),
        "mean of different sides": statistics.mean(other),
        "frozen": jaccard(*frozen),
    }


def _draw(options: argparse.Namespace, trials: int, seed: int) -> Path:
    folder = options.work / f"{trials}-{seed}"
    settings = {
        "teach.adapter": (options.run / "vanilla").resolve(),
        "data.max_rows": options.rows,
        "data.max_val_rows": 1,
        "importance.trials": trials,
        "importance.seed": seed,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    code = grail(["localize", str(options.config), *words, "--output", str(folder)])
    if code:
        raise SystemExit(code)
    return folder


def _sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the top K of each layer of every side's scores."""
    files = sorted((folder / "scores").glob("*.safetensors"))
    return {f.stem: top_per_layer(read_scores(f).mean_abs, K, "block") for f in files}


if __name__ == "__main__":
    main()
