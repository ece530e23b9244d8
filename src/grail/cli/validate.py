"""``grail validate``: problems of the settings, then of files and rows; no weights are loaded.

Heavy imports happen inside the functions.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from grail.cli.signs import plain

_HELP = "check configuration and data, load no weights"


def add_validate(commands: Any) -> Any:
    """Add the command to the parser's commands; return its parser."""
    parser = commands.add_parser("validate", help=_HELP, description=_HELP)
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.set_defaults(handler=_handle)
    return parser


def _handle(options: argparse.Namespace) -> int:
    from grail.cli.terminal import quiet
    from grail.config.file import is_comparison, load_config, read
    from grail.errors import InputError
    from grail.run import manifest
    from grail.run.context import check_texts
    from grail.run.inputs import read_inputs, row_problems

    quiet()
    manifest.require_settings(options.config)
    if is_comparison(read(options.config)[1]):
        return _validate_comparison(options)
    try:
        config = load_config(options.config, options.set, options.output)
    except InputError as error:  # the rows are looked at all the same, if they can be found
        raise InputError([*error.problems, *row_problems(options.config, options.set)]) from error
    inputs = read_inputs(config)
    warnings = [*inputs.warnings, *check_texts(config, inputs)]
    counts: dict[str, int] = {}
    for sample in (*inputs.samples, *inputs.general):
        name = f"{sample.domain}.{sample.side}.{sample.part}"
        counts[name] = counts.get(name, 0) + 1
    counts |= {t.name: len(t.items) for t in inputs.tasks if not isinstance(t, str)}
    plan = training_plan(config, inputs.samples)
    if options.json:
        print(json.dumps({"rows": counts, "warnings": warnings, "trained": plan}))
        return 0
    for warning in warnings:
        print(f"warning: {plain(warning)}", file=sys.stderr)
    for name, count in counts.items():
        print(f"{name}: {many(count, 'row')}")
    print(plan)
    kind = "found" if Path(config.model.name).exists() else "by name, not looked up"
    print(f"model: {config.model.name} ({kind})")
    print(f"{options.config} is valid. It would write to {Path(config.output).absolute()}.")
    return 0


def training_plan(config: Any, samples: Any) -> str:
    """Say in one line what a run trains on which rows."""

    def count(side: str, *parts: str) -> int:
        return sum(row.side == side and row.part in parts for row in samples)

    model = config.model.name
    first = f"takes {model} as it is"
    if config.adapter:
        first = f"takes the adapter {config.adapter} on {model} as it is"
    elif config.teaches:
        parts = config.teach.parts
        facts = f"{count('unlearn', *parts)} unlearn and {count('retain', *parts)} retain rows"
        first = f"teaches {facts} to {model} first"
    unlearned, kept = many(count("unlearn", "train"), "row"), count("retain", "train")
    if config.unlearning.objective == "exact":
        return f"{first}, then trains it anew on {many(kept, 'retain row')} alone"
    return f"{first}, then unlearns {unlearned} and retains {many(kept, 'row')}"


def many(count: int, word: str) -> str:
    """Return a number and a word, in the plural unless it is one."""
    return f"{count} {word}{'s' * (count != 1)}"


def _validate_comparison(options: argparse.Namespace) -> int:
    from grail.comparison.compare import validate
    from grail.comparison.rows import plan_comparison
    from grail.comparison.settings import load_comparison

    plan = plan_comparison(*load_comparison(options.config, options.set, options.output))
    warnings = validate(plan)
    counts = {row.name: len(plan.runs(row, row.points[0])) for row in plan.rows}
    if options.json:
        print(json.dumps({"runs": counts, "warnings": warnings}))
        return 0
    for warning in warnings:
        print(f"warning: {plain(warning)}", file=sys.stderr)
    for name, count in counts.items():
        print(f"{name}: {many(count, 'run')}")
    print(f"{options.config} is valid. It would write to {plan.output.absolute()}.")
    return 0
