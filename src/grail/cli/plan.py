"""``grail plan``: its arguments and what it prints; heavy imports happen inside the handler."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grail.cli.settings import SettingsParser

if TYPE_CHECKING:
    from grail.forecast.forecast import Forecast, Stage
    from grail.reporting.tables import Table

ABOUT = "what a run or a comparison will take on this machine: time and memory; writes nothing"
UNITS = ("", "k", "M", "G", "T", "P", "E")


def add_plan(commands: Any, handler: Any) -> SettingsParser:
    """Add the command to the parser's commands; the options of a run are the caller's."""
    plan = commands.add_parser("plan", help=ABOUT, description=ABOUT)
    config = "YAML file of a run or of a comparison, or run directory"
    plan.add_argument("config", type=Path, metavar="CONFIG", help=config)
    plan.set_defaults(handler=handler)
    return plan


def handle(options: argparse.Namespace) -> int:
    """Plan, print tables and notes, and return the exit code.

    Raises:
        InputError: if the configuration, its data or its model cannot be used.
    """
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet
    from grail.config.file import load_config

    config = load_config(options.config, options.set, options.output)
    quiet()
    from grail.forecast.forecast import make_forecast
    from grail.run.inputs import read_inputs

    listener = Terminal(Console(stderr=True))
    inputs = read_inputs(config)
    for warning in inputs.warnings:
        listener.warn(warning)
    made = make_forecast(config, inputs, listener)
    if options.json:
        sys.stdout.write(json.dumps({"output": config.output, **made.as_json()}) + "\n")
        return 0
    _show(made, Console(highlight=False))
    return 0


def _show(plan: Forecast, console: Any) -> None:
    from grail.cli.terminal import render

    for table in tables(plan):
        console.print(render(table))
    for note in plan.notes:
        console.print(f"- {note}", markup=False)
    console.print(summary(plan), markup=False, soft_wrap=True)


def tables(plan: Forecast) -> list[Table]:
    """Return rows and tokens, the stages, and the files."""
    from grail.reporting.tables import Table

    counts = [(name, *map(str, own)) for name, own in plan.counts.items()]
    files = [(name, size(value)) for name, value in plan.artifacts.items() if value]
    return [
        Table("Rows", ("Side", "Rows", "Tokens", "Answer tokens"), tuple(counts)),
        Table(
            "Stages",
            ("Stage", "", "Passes", "Tokens", "FLOP", "Peak memory", "Time"),
            tuple(_row(plan, stage) for stage in plan.stages),
        ),
        Table("Files", ("File", "Size"), tuple(files)),
    ]


def summary(plan: Forecast) -> str:
    """Return the last line: the model, and all stages together."""
    shape = plan.shape
    return (
        f"{number(shape.parameters)} parameters, {number(shape.trainable)} trainable, on "
        f"{plan.device} ({number(plan.speed.rate)}FLOP/s); still to do: {span(plan.seconds)}, "
        f"with {sizes(plan.memory)} of memory"
    )


def _row(plan: Forecast, stage: Stage) -> tuple[str, ...]:
    work = stage.work
    kinds = (work.forward, work.backward, work.generated)
    state = "done" if stage.done else "at most" if work.at_most else ""
    return (
        stage.name,
        state,
        str(sum(passes.batches for passes in kinds)),
        number(sum(passes.tokens for passes in kinds)),
        number(stage.operations),
        sizes(plan.peak(stage.memory)),
        span(stage.seconds),
    )


def number(value: float) -> str:
    """Return a number with two or three digits and a letter for thousands: 135 M."""
    for unit in UNITS:
        if value < 999.5 or unit == UNITS[-1]:
            digits = 0 if value >= 10 or not unit else 1
            return f"{value:.{digits}f} {unit}".rstrip()
        value /= 1000
    raise AssertionError("the last unit takes every number")


def size(value: float) -> str:
    """Return bytes with a binary unit: 9.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5 or unit == "GiB":
            return f"{value:.{0 if unit == 'B' else 1}f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes every number")


def sizes(memory: tuple[float, float]) -> str:
    """Return a range of bytes in GiB: 1.3-2.6 GiB."""
    return "-".join(f"{value / 2**30:.1f}" for value in memory) + " GiB"


def span(seconds: tuple[float, float]) -> str:
    """Return a range of time in one unit, with no more digits than it deserves: 3-6 min."""
    low, high = seconds
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if high >= 2 * length:
            return f"{_rounded(low / length)}-{_rounded(high / length)} {unit}"
    return "under 2 s"


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value < 2 else f"{value:.0f}"
