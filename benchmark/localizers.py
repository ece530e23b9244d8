"""none, random and grail at equal settings on the real pair, three seeds, one vanilla model.

Usage: python benchmark/localizers.py --data DIR [--work DIR] [--seeds 0 1 2] [--set KEY=VALUE ...]

DIR holds knowundo_privacy/ and copyright_fairytale/, each with unlearn_train.jsonl,
unlearn_val.jsonl, retention_train.jsonl and retention_val.jsonl. The vanilla model is trained once,
and its scores are made once (importance.seed); seeds differ in the order of rows and in the random
masks. A cell that is finished is not run again, so an interrupted benchmark goes
on. Two cells run side by side, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from machine import rows_of, write

HERE = Path(__file__).parent
METHODS = ("none", "random", "grail")
DOMAINS = {"privacy": "knowundo_privacy", "copyright": "copyright_fairytale"}
SIDES = {"unlearn": "unlearn", "retain": "retention"}


def main() -> None:
    """Run the vanilla model, then all cells, then write results/localizers.json."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    config = options.work / "base.yaml"
    config.write_text(yaml.safe_dump(_config(options.data.resolve())), encoding="utf-8")
    vanilla = options.work / "vanilla"
    _grail(["vanilla", config, "--output", vanilla], threads=os.cpu_count() or 1)
    shared = options.work / "scored"
    words = _common(options, options.seeds[0])
    _grail(["score", config, *words, "--output", shared], threads=os.cpu_count() or 1)
    with ThreadPoolExecutor(options.parallel) as pool:
        cells = [(seed, method) for seed in options.seeds for method in METHODS]
        list(pool.map(lambda cell: _cell(options, config, *cell), cells))
    path = write("localizers", _settings(options, config), *_collect(options, cells))
    print(f"wrote {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/localizers"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


_Raw = argparse.RawDescriptionHelpFormatter


def _config(data: Path) -> dict[str, Any]:
    text = (HERE / "experiments" / "localizers.yaml").read_text(encoding="utf-8")
    domains = {
        domain: {
            side: {part: str(data / folder / f"{file}_{part}.jsonl") for part in ("train", "val")}
            for side, file in SIDES.items()
        }
        for domain, folder in DOMAINS.items()
    }
    return yaml.safe_load(text) | {"domains": domains}


def _grail(words: list[Any], threads: int = 1) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "grail", *map(str, words)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def _common(options: argparse.Namespace, seed: int) -> list[str]:
    adapter = (options.work / "vanilla" / "vanilla").resolve()
    overrides = [f"seed={seed}", f"vanilla.adapter={adapter}", *options.set]
    return [word for override in overrides for word in ("--set", override)]


def _cell(options: argparse.Namespace, config: Path, seed: int, method: str) -> None:
    """Run one cell on the shared scores."""
    folder, scored = options.work / f"{seed}.{method}", options.work / "scored"
    if not (folder / "scores").exists():
        for name in ("vanilla", "scores"):
            shutil.copytree(scored / name, folder / name)
        shutil.copy(scored / "config.yaml", folder)
    common = [*_common(options, seed), "--set", f"localization.method={method}"]
    _grail(["unlearn", config, *common, "--output", folder])
    known = scored / "evaluation" / "vanilla.json"  # one vanilla model: measured once
    own = folder / "evaluation" / "vanilla.json"
    own.parent.mkdir(exist_ok=True)
    if known.exists() and not own.exists():
        shutil.copy(known, own)
    _grail(["evaluate", config, *common, "--output", folder])
    if not known.exists():
        known.parent.mkdir(exist_ok=True)
        shutil.copy(own, known)


def _settings(options: argparse.Namespace, config: Path) -> dict[str, Any]:
    cell = options.work / f"{options.seeds[0]}.grail" / "config.yaml"
    resolved = yaml.safe_load(cell.read_text(encoding="utf-8"))
    hidden = ("domains", "made_with", "output", "seed")
    kept = {key: value for key, value in resolved.items() if key not in hidden}
    kept["vanilla"]["adapter"] = "trained once with seed 0, shared by all cells"
    trained = yaml.safe_load(config.read_text(encoding="utf-8"))["vanilla"]
    return {
        "command": "python benchmark/localizers.py --data DIR",
        "data": DOMAINS,
        "data_sha256": resolved["made_with"]["data"],
        "seeds": options.seeds,
        "vanilla_training": trained,
        "vanilla_steps": len(_lines(options.work / "vanilla" / "vanilla.train.jsonl")),
        "config": kept,
    }


def _collect(
    options: argparse.Namespace, cells: list[tuple[int, str]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return one measurement per cell, and one mean line per localizer."""
    measured: list[dict[str, Any]] = []
    for seed, method in cells:
        folder = options.work / f"{seed}.{method}"
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        steps = [json.loads(line) for line in _lines(folder / "train.jsonl")]
        pace = statistics.median(step["seconds"] for step in steps)  # a pause does not count
        summary = {
            f"{part}.{name}": value
            for part, values in found["summary"].items()
            for name, value in values.items()
            if name != "models"
        }
        measured.append(
            {"localizer": method, "seed": seed}
            | {"unlearn_minutes": pace * len(steps) / 60}
            | {"steps": len(steps), "frozen": found["freezing"]["frozen"]}
            | {"changed": found["freezing"]["changed"], "summary": summary}
            | {"rows": rows_of(folder / "results.json", "unlearned")}
        )
    vanilla = rows_of(options.work / f"{options.seeds[0]}.grail" / "results.json", "vanilla")
    means = [_mean(method, measured) for method in METHODS]
    return [*measured, *means, {"localizer": "vanilla", "rows": vanilla}], {}


def _mean(method: str, measured: list[dict[str, Any]]) -> dict[str, Any]:
    own = [cell["summary"] for cell in measured if cell["localizer"] == method]
    spread = {
        name: {
            "mean": statistics.mean(cell[name] for cell in own),
            "sd": statistics.stdev(cell[name] for cell in own) if len(own) > 1 else 0.0,
        }
        for name in own[0]
    }
    return {"localizer": method, "over_seeds": spread}


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


if __name__ == "__main__":
    main()
