"""The demo for several seeds, and for other weights of general text: time, memory, every figure.

Usage: python benchmark/demo.py [--seeds 0 1 2] [--weights 0 1] [--work DIR]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import rows_of, write


def main() -> None:
    """Run the demo once per seed in a fresh folder and write results/demo.json.

    The first seed's vanilla model and scores are then used with each of the other weights.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=float, nargs="*", default=[0.0, 1.0])
    parser.add_argument("--work", type=Path, default=Path("runs/demo-seeds"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    measured = [_run(options.work, seed) for seed in options.seeds]
    for weight in options.weights:
        changed = f"unlearning.general_weight={weight}"
        found = _run(options.work, options.seeds[0], changed)
        measured.append({"changed": changed} | found)
    settings = {"command": "python benchmark/demo.py", "seeds": options.seeds}
    settings |= {"weights": options.weights}
    print(f"wrote {write('demo', settings, measured, {})}")


_Raw = argparse.RawDescriptionHelpFormatter


def _run(work: Path, seed: int, *changed: str) -> dict[str, Any]:
    folder = work / str(seed)
    command = [sys.executable, "-m", "grail", "demo", "--json"]
    for setting in (f"seed={seed}", *changed):
        command += ["--set", setting]
    began = time.monotonic()
    subprocess.run([*command, "--output", str(folder)], check=True, stdout=subprocess.DEVNULL)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, largest child so far
    minutes = (time.monotonic() - began) / 60
    return {"seed": seed, "minutes": minutes, "memory_gib_at_most": largest / 2**20} | read(folder)


def read(folder: Path) -> dict[str, Any]:
    """Return every figure of a finished demo."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {
        "summary": found["summary"],
        "freezing": found["freezing"],
        "vanilla": rows_of(folder / "results.json", "vanilla"),
        "unlearned": rows_of(folder / "results.json", "unlearned"),
    }


if __name__ == "__main__":
    main()
