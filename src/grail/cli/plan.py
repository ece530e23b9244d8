"""``grail plan``: its arguments and what it prints; heavy imports are in the functions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grail.cli.settings import SettingsParser

if TYPE_CHECKING:
    from grail.reporting.tables import Table
    from grail.run.forecast.forecast import Forecast, Stage

HELP = "what a run or a comparison will take on this machine: time and memory; writes nothing"


def add_plan(commands: Any) -> SettingsParser:
    """Add the command to the parser's commands; the caller adds the options of a run."""
    parser = commands.add_parser("plan", help=HELP, description=HELP)
    config = "YAML file of a run or of a comparison, or run directory"
    parser.add_argument("config", type=Path, metavar="CONFIG", help=config)
    parser.add_argument(
        "--shape",
        metavar="NAME",
        help="plan for a model of another shape, which need not be here: 1b, 7b, 13b, 70b, or a "
        "folder or cached Hub id with a config.json",
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="with --shape: devices that share it (default 1)"
    )
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="with --shape: of each device (default 80)"
    )
    parser.add_argument(
        "--tflops", type=float, metavar="T", help="with --shape: what each device sustains"
    )
    parser.add_argument(
        "--frozen",
        type=float,
        metavar="SHARE",
        help="with --shape: share of the entries that the mask will freeze (0-1), if known",
    )
    parser.set_defaults(handler=handle_plan)
    return parser


def handle_plan(options: argparse.Namespace) -> int:
    """Plan a run or a comparison, print a table and notes, and return the exit code."""
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet, render
    from grail.config.file import is_comparison, read
    from grail.errors import InputError
    from grail.run import manifest

    manifest.require_settings(options.config)
    listener = Terminal()
    for name in ("devices", "memory", "tflops", "frozen"):
        if options.shape is None and getattr(options, name) is not None:
            raise InputError(f"--{name} is about a shape. Give --shape NAME, or leave it out.")
    if options.shape is not None:
        from grail.cli.plan_shape import shape_plan as plan
    elif is_comparison(read(options.config)[1]):
        from grail.cli.plan_comparison import comparison_plan as plan
    else:
        plan = _plan_run
    quiet()
    found, table, last = plan(options, listener)
    if options.json:
        print(json.dumps(found))
        return 0
    console = Console(highlight=False)
    console.print(render(table, console.width))
    for note in found["notes"]:
        console.print(f"- {note}", markup=False)
    console.print(last, markup=False, soft_wrap=True)
    return 0


def _plan_run(options: argparse.Namespace, listener: Any) -> tuple[dict[str, Any], Table, str]:
    """Return a run's plan as JSON values, as a table, and its last line."""
    from grail.config.file import load_config
    from grail.reporting.tables import Table
    from grail.run.forecast.forecast import plan_of
    from grail.run.forecast.machine import measure
    from grail.run.inputs import read_inputs

    config = load_config(options.config, options.set, options.output)
    inputs = read_inputs(config)
    for warning in inputs.warnings:
        listener.warn(warning)
    plan = plan_of(config, inputs, measure(config, inputs, listener))
    columns = ("Stage", "", "Tokens", "Peak memory", "Files", "Time")
    table = Table("Stages", columns, tuple(map(_row, plan.stages)))
    return {"output": config.output, **plan.as_json()}, table, _last_line(plan)


def _last_line(plan: Forecast) -> str:
    """Return the model's size, and what all stages together take."""
    return (
        f"{number(plan.shape.parameters)} parameters, {number(plan.shape.trainable)} trainable, on "
        f"{plan.device}; still to do: {left(plan.total)}"
    )


def left(total: dict[str, tuple[float, float]]) -> str:
    """Return time and memory of what is left, as words."""
    return f"{span(total['seconds'])}, with {sizes(total['memory'])} of memory"


def _row(stage: Stage) -> tuple[str, ...]:
    return (
        stage.name,
        "done" if stage.done else "",
        number(sum(stage.work.values())),
        sizes(stage.memory),
        in_bytes(stage.files),
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
