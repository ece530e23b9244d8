"""Speed: grail against the obvious ways, side by side in one run.

Usage: python benchmark/speed.py [--only PART,PART] [--data DIR] [--device cpu|cuda] [--quick]

Parts: scoring, training, evaluation, pipeline, growth. DIR holds knowundo_privacy/ (default: the
embedded rows). Each part writes results/speed/DEVICE/PART.json when it is done; a trial (--quick:
everything once on a tiny model, its times say nothing; --rows N: a few rows, once) writes to
runs/speed/, and --output DIR says otherwise. Freed memory is kept on both sides, as grail's command
keeps it; with GLIBC_TUNABLES= in front it is given back, as plain Python programs do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from races.outcome import Outcome
    from races.plan import Plan

PARTS = ("scoring", "training", "evaluation", "pipeline", "growth")
MEASURED, TRIED = Path(__file__).parent / "results" / "speed", Path("runs/speed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts asked for and return the exit code."""
    options = _options(arguments)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when torch first looks for devices
    from grail.errors import InputError

    try:
        return _run(options)
    except InputError as error:
        print(f"speed: error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    import torch
    from machine import machine
    from races.plan import make_plan

    from grail.cli.allocator import keep_freed
    from grail.cli.terminal import quiet

    quiet()
    options.kept = keep_freed()  # as grail's command does; the ways it is raced against gain too
    if options.device == "cuda" and not torch.cuda.is_available():
        text = "--device cuda: torch sees no CUDA device on this machine; nothing was measured."
        print(f"speed: error: {text}", file=sys.stderr)
        return 2
    data = options.data.resolve() if options.data else None
    own = machine()["bfloat16"]
    plan = make_plan(options.device, data, options.quick, options.rows, bfloat16=own)
    for text in plan.left_out:
        print(f"Note: {text}.", flush=True)
    failed = [part for part in options.only if not _race(part, plan, options)]
    if failed:
        print(f"speed: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _race(part: str, plan: Plan, options: argparse.Namespace) -> bool:
    """Run one part, show it and write it; a part that fails costs the others nothing."""
    from machine import write

    from grail.errors import InputError

    began = time.monotonic()
    try:
        outcome = importlib.import_module(f"races.{part}").run(plan)
    except InputError:
        raise
    except Exception:
        traceback.print_exc()
        return False
    minutes = (time.monotonic() - began) / 60
    _show(outcome)
    settings = _settings(options, plan) | {"notes": outcome.notes, "minutes": round(minutes, 1)}
    path = _output(options) / f"{part}.json"
    print(f"wrote {write(path, settings, outcome.measurements, outcome.ratios)}", flush=True)
    return True


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_parts, default=PARTS, metavar="PART,PART")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, metavar="N", help="a trial with N rows, once")
    parser.add_argument("--output", type=Path, metavar="DIR")
    return parser.parse_args(arguments)


def _parts(text: str) -> tuple[str, ...]:
    given = text.split(",")
    unknown = sorted(set(given) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]}; parts: {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in given)


def _output(options: argparse.Namespace) -> Path:
    if options.output:
        return options.output
    trial = options.quick or options.rows is not None
    return TRIED if trial else MEASURED / options.device


def _settings(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    source = "embedded" if options.data is None else "knowundo_privacy"
    told = asdict(plan) | {"data": source}
    command = "python benchmark/speed.py" + (" --data DIR" if options.data else "")
    return {
        "command": command + (" --device cuda" if options.device == "cuda" else ""),
        "freed_memory": "kept" if options.kept else "given back",
        "value": "a ratio is the median over rounds in which its two sides ran in turn",
        "plan": told,
    }


def _show(outcome: Outcome) -> None:
    from races.outcome import verdict

    from grail.reporting.tables import Table, markdown

    rows = [(name, f"{value:.3g}", verdict(name, value)) for name, value in outcome.ratios.items()]
    print(markdown(Table(outcome.part.capitalize(), ("ratio", "value", "wanted"), tuple(rows))))
    for line in outcome.measurements:
        if "tables" in line:
            _show_tables(line["tables"])
    for note in outcome.notes:
        print(f"Note: {note}.")


def _show_tables(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    from grail.reporting.tables import Table, markdown

    rows = [
        (model, name, f"{both['grail']:.2f}", f"{both['naive']:.2f}")
        for model, numbers in tables.items()
        for name, both in numbers.items()
    ]
    print(markdown(Table("Both pipelines' results", ("model", "", "grail", "naive"), tuple(rows))))


if __name__ == "__main__":
    sys.exit(main())
