"""Peak memory of one process with the whole model, and of two with a part each (FSDP2).

    python benchmark/sharded.py          # writes results/sharded.json; minutes on two cores

A random Llama, whose weights outweigh all else, is scored and unlearned with all weights. Each
process says how much memory it held at most. Then one process is given the address space that each
of the two needed, in which it must fail. Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from peaks import make_model, measured, write_settings

WIDTH, LAYERS, HEADS = 768, 12, 12
SHARE = 0.65
"""The most that each of two processes may take of what one takes alone."""


def make(folder: Path) -> Path:
    """Write a random model and few short rows; return the settings file."""
    make_model(folder / "model", WIDTH, LAYERS, HEADS)
    sections = {
        "model": {"name": str(folder / "model"), "lora": None, "dtype": "float32"},
        "teach": False,
        "importance": {"trials": 1},
        "unlearning": {"objective": "ascent_descent", "epochs": 2, "batch_size": 4},
    }
    write_settings(file := folder / "settings.yaml", sections, domains=1, rows=4)
    return file


def main() -> None:
    """Measure one process, two, and one under the limit that two can keep."""
    argparse.ArgumentParser(description=str(__doc__).partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = ["unlearn", str(make(Path(folder))), "--output"]
        (whole,) = measured([*words, f"{folder}/one"])
        parts = measured([*words, f"{folder}/two"], processes=2)
        room = int(max(part["VmPeak"] for part in parts))
        fits = bool(measured([*words, f"{folder}/narrow"], limit=room))
    share = max(part["VmHWM"] for part in parts) / whole["VmHWM"]
    found = {"whole": whole, "parts": parts, "whole_fits_the_room_of_a_part": fits}
    settings = {"layers": LAYERS, "width": WIDTH, "wanted": SHARE}
    from machine import write

    print(f"wrote {write('sharded', settings, [found], {'part / whole': round(share, 4)})}")


if __name__ == "__main__":
    main()
