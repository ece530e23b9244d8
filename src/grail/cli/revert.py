"""``grail revert``: its arguments and what it prints; heavy imports happen inside the handler."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_ABOUT = "write the model before unlearning, bit for bit: the way back"


def add_revert(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser("revert", help=_ABOUT, description=_ABOUT)
    parser.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a run")
    where = "the folder to write, new or empty"
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=where)
    parser.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> int:
    from grail.cli.terminal import quiet

    quiet()
    from grail.handover.revert import revert

    found = revert(options.folder, options.output)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    for name, sha in found["files"].items():
        sys.stdout.write(f"{sha}  {name}\n")
    sys.stdout.write(
        f"wrote: {found['output']}, from {found['from']}. It knows what was removed.\n"
    )
    return 0
