"""Speed: grail against the obvious ways, side by side in one run.

Usage: python benchmark/speed.py [--only PART,PART] [--data DIR] [--device cpu|cuda] [--quick]

Parts: scoring, training, evaluation, pipeline, growth. DIR holds knowundo_privacy/ (default: the
embedded rows). The whole run writes results/speed.json; any other goes to runs/speed.json, or
where --output says. --quick runs everything once on a tiny model: its times say nothing.
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
DEFAULT, OTHER = Path(__file__).parent / "results" / "speed.json", Path("runs/speed.json")


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
    from machine import write
    from races.plan import make_plan

    from grail.terminal import quiet

    quiet()
    if options.device == "cuda" and not torch.cuda.is_available():
        text = "--device cuda: torch sees no CUDA device on this machine; nothing was measured."
        print(f"speed: error: {text}", file=sys.stderr)
        return 2
    data = options.data.resolve() if options.data else None
    plan = make_plan(options.device, data, options.quick, options.rows)
    found, failed = _race(options.only, plan)
    settings = _settings(options, plan)
    settings["notes"] = [note for outcome in found for note in outcome.notes]
    settings["failed"] = failed
    measured = [line for outcome in found for line in outcome.measurements]
    ratios = {name: value for outcome in found for name, value in outcome.ratios.items()}
    print(f"wrote {write(_output(options, failed), settings, measured, ratios)}")
    return 1 if failed else 0


def _race(parts: Sequence[str], plan: Plan) -> tuple[list[Outcome], list[str]]:
    """Show each part as it is done; return all, and which failed: the others are not lost."""
    from grail.errors import InputError

    found, failed = [], []
    for part in parts:
        began = time.monotonic()
        try:
            found.append(importlib.import_module(f"races.{part}").run(plan))
            _show(found[-1])
        except InputError:
            raise
        except Exception:
            traceback.print_exc()
            failed.append(part)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found, failed


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_parts, default=PARTS, metavar="PART,PART")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, metavar="N", help="a trial with N rows, once")
    parser.add_argument("--output", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def _parts(text: str) -> tuple[str, ...]:
    given = text.split(",")
    unknown = sorted(set(given) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]}; parts: {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in given)


def _output(options: argparse.Namespace, failed: Sequence[str]) -> Path:
    if options.output:
        return options.output
    trial = options.quick or options.rows is not None
    return DEFAULT if options.only == PARTS and not trial and not failed else OTHER


def _settings(options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    source = "embedded" if options.data is None else "knowundo_privacy"
    told = asdict(plan) | {"data": source}
    command = "python benchmark/speed.py" + (" --data DIR" if options.data else "")
    return {
        "command": command + (" --device cuda" if options.device == "cuda" else ""),
        "value": "a ratio is the median over rounds in which its two sides ran in turn",
        "parts": list(options.only),
        "plan": told,
    }


def _show(outcome: Outcome) -> None:
    from races.outcome import verdict

    from grail.reporting.tables import Table, markdown

    rows = [(name, f"{value:.3g}", verdict(name, value)) for name, value in outcome.ratios.items()]
    print(markdown(Table("Speed", ("ratio", "value", "wanted"), tuple(rows))))
    for line in outcome.measurements:
        if "tables" in line:
            _show_tables(line["tables"])
    for note in outcome.notes:
        print(f"Note: {note}.")
    sys.stdout.flush()


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
