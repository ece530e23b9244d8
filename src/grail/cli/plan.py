"""``grail plan`` of a run: its arguments and what it prints; heavy imports are in the functions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grail.cli.settings import SettingsParser

if TYPE_CHECKING:
    from grail.forecast.forecast import Forecast, Stage
    from grail.reporting.tables import Table

HELP = "what a run or a comparison will take on this machine: time and memory; writes nothing"


def add_plan(commands: Any, handler: Any) -> SettingsParser:
    """Add the command to the parser's commands; the caller adds the options of a run."""
    parser = commands.add_parser("plan", help=HELP, description=HELP)
    config = "YAML file of a run or of a comparison, or run directory"
    parser.add_argument("config", type=Path, metavar="CONFIG", help=config)
    parser.set_defaults(handler=handler)
    return parser


def handle_plan(options: argparse.Namespace) -> int:
    """Plan a run, print tables and notes, and return the exit code.

    Raises:
        InputError: if the configuration, its data or its model cannot be used.
    """
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet
    from grail.config.file import load_config

    config = load_config(options.config, options.set, options.output)
    quiet()
    from grail.forecast.forecast import measure, plan_of
    from grail.run.inputs import read_inputs

    listener = Terminal(Console(stderr=True))
    inputs = read_inputs(config)
    for warning in inputs.warnings:
        listener.warn(warning)
    plan = plan_of(config, inputs, measure(config, inputs, listener))
    if options.json:
        sys.stdout.write(json.dumps({"output": config.output, **plan.as_json()}) + "\n")
    else:
        show(forecast_tables(plan), plan.notes, last_line(plan))
    return 0


def show(tables: Sequence[Table], notes: Sequence[str], last: str) -> None:
    """Print tables, then notes, then the last line."""
    from rich.console import Console

    from grail.cli.terminal import render

    console = Console(highlight=False)
    for table in tables:
        console.print(render(table))
    for note in notes:
        console.print(f"- {note}", markup=False)
    console.print(last, markup=False, soft_wrap=True)


def forecast_tables(plan: Forecast) -> list[Table]:
    """Return rows and tokens, the stages, and the files."""
    from grail.reporting.tables import Table

    counts = tuple((name, *map(str, numbers)) for name, numbers in plan.counts.items())
    stages = tuple(_row(plan, stage) for stage in plan.stages)
    files = tuple((name, in_bytes(value)) for name, value in plan.artifacts.items() if value)
    columns = ("Stage", "", "Passes", "Tokens", "FLOP", "Peak memory", "Time")
    return [
        Table("Rows", ("Side", "Rows", "Tokens", "Answer tokens"), counts),
        Table("Stages", columns, stages),
        Table("Files", ("File", "Size"), files),
    ]


def last_line(plan: Forecast) -> str:
    """Return the model's size, and what all stages together take."""
    return (
        f"{number(plan.shape.parameters)} parameters, {number(plan.shape.trainable)} trainable, on "
        f"{plan.device} ({number(plan.speed.rate)}FLOP/s); still to do: {span(plan.seconds)}, "
        f"with {sizes(plan.memory)} of memory"
    )


def _row(plan: Forecast, stage: Stage) -> tuple[str, ...]:
    work = stage.work
    kinds = (work.forward, work.backward, work.generated)
    return (
        stage.name,
        "done" if stage.done else "at most" if work.at_most else "",
        str(sum(passes.batches for passes in kinds)),
        number(sum(passes.tokens for passes in kinds)),
        number(stage.operations),
        sizes(plan.peak(stage.memory)),
        span(stage.seconds),
    )


def number(value: float) -> str:
    """Return a number with two or three digits and a letter for thousands: 135 M."""
    value, unit = _scaled(value, 1000, ("", "k", "M", "G", "T", "P", "E"))
    return f"{value:.{0 if value >= 10 or not unit else 1}f} {unit}".rstrip()


def in_bytes(value: float) -> str:
    """Return bytes with a binary unit: 9.3 MiB."""
    value, unit = _scaled(value, 1024, ("B", "KiB", "MiB", "GiB"))
    return f"{value:.{0 if unit == 'B' else 1}f} {unit}"


def _scaled(value: float, step: int, units: Sequence[str]) -> tuple[float, str]:
    """Return the value in the unit that leaves it below ``step``, or in the last one."""
    for unit in units[:-1]:
        if value < step - 0.5:
            return value, unit
        value /= step
    return value, units[-1]


def sizes(memory: tuple[float, float]) -> str:
    """Return a range of bytes in GiB: 1.3-2.6 GiB."""
    return "-".join(f"{value / 2**30:.1f}" for value in memory) + " GiB"


def span(seconds: tuple[float, float]) -> str:
    """Return a range of time in one unit, with no more digits than it deserves: 3-6 min."""
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds[1] >= 2 * length:
            values = (value / length for value in seconds)
            return "-".join(f"{v:.{1 if v < 2 else 0}f}" for v in values) + f" {unit}"
    return "under 2 s"
