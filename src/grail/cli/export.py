"""``grail export``: its arguments and what it prints; heavy imports happen inside the handler."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_ABOUT = "write the unlearned model as a plain Hugging Face folder with a model card"
_FORMS = {
    "merge": "a complete model: base and adapter as one, in the type of the base",
    "adapter": "the adapter as the run has it; its base is named without a path of this machine",
    "delta": "the exact difference from the model before: whoever has both has the model before",
}


def add_export(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser("export", help=_ABOUT, description=_ABOUT)
    parser.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a finished run")
    form = parser.add_mutually_exclusive_group(required=True)
    for name, text in _FORMS.items():
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=text)
    where = "the folder to write, new or empty"
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=where)
    hub = "also upload it to this private repository of the Hub"
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help=hub)
    parser.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> int:
    from grail.cli.terminal import quiet
    from grail.errors import InputError

    quiet()
    from grail.handover.export import check_hub, export, push

    hub = options.push_to_hub
    if hub is not None:
        if options.form == "delta":
            raise InputError(
                "--push-to-hub: a delta gives back what was removed. Upload --merge or --adapter."
            )
        check_hub(hub)
    found = export(options.folder, options.form, options.output)
    if hub is not None:
        found["hub"] = push(options.output, hub)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    for line in (
        f"wrote: {found['output']} ({options.form}; read its README.md before you pass it on)",
        *found["remarks"],
        *([f"uploaded: {found['hub']}"] if hub else []),
    ):
        sys.stdout.write(line + "\n")
    return 0
