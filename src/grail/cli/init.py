"""``grail init``: settings drafted from a model and files of rows, after looking at them.

Heavy imports happen inside the handler.
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from grail.cli.signs import plain

_HELP = "write a commented settings file from a model and your rows, after looking at both"


def add_init(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser("init", help=_HELP, description=_HELP)
    parser.add_argument("--model", required=True, metavar="MODEL", help="as model.name")
    parser.add_argument("--unlearn", required=True, metavar="FILE", help="the rows to lose")
    parser.add_argument("--retain", metavar="FILE", help="the rows to keep (default: general ones)")
    parser.add_argument("--prompt", metavar="COLUMN", help="what the files call the question")
    parser.add_argument("--completion", metavar="COLUMN", help="what they call the answer")
    parser.add_argument("--output", type=Path, default=Path("erase.yaml"), metavar="YAML")
    parser.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> int:
    from grail.cli.terminal import quiet
    from grail.errors import InputError
    from grail.run.draft import draft, write_draft

    quiet()
    columns = {"prompt": options.prompt, "completion": options.completion}
    if len({name is None for name in columns.values()}) == 2:
        raise InputError("--prompt and --completion belong together: give both, or neither.")
    given = {} if options.prompt is None else columns
    made = draft(options.output, options.model, options.unlearn, options.retain, given)
    write_draft(options.output, made)
    if options.json:
        print(json.dumps({"output": str(options.output), "found": made.said}))
        return 0
    for line in made.said:
        print(plain(line))
    print(f"wrote: {options.output}. Next: grail validate {shlex.quote(str(options.output))}")
    return 0
