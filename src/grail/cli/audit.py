"""``grail audit``: its arguments and what it prints; heavy imports happen inside the handler."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ABOUT = "attack the unlearned model of a finished run, measure again, and say what comes back"


def add_audit(commands: Any) -> None:
    """Add the command to the parser's commands."""
    audit = commands.add_parser("audit", help=ABOUT, description=ABOUT)
    audit.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a finished run")
    audit.add_argument(
        "--oracle", type=Path, metavar="RUNDIR2", help="run of preset exact on the same data"
    )
    audit.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="audit.KEY=VALUE"
    )
    audit.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    audit.settings = "run: audit"
    audit.set_defaults(handler=handle)


def handle(options: argparse.Namespace) -> int:
    """Audit, print the verdict, and return the exit code (0: the audit was made, whatever it says).

    Raises:
        InputError: if the run cannot be audited.
    """
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet

    quiet()
    from grail.audit.audit import FILE, audit_run

    listener = Terminal(Console(stderr=True))
    found = audit_run(options.folder, options.oracle, options.set, listener)
    if options.json:
        shown = ("outcome", "passed", "outcomes", "sentences", "measured")
        about = {"output": str(options.folder / FILE), **{key: found[key] for key in shown}}
        sys.stdout.write(json.dumps(about) + "\n")
        return 0
    _show(options.folder, found, Console(highlight=False))
    return 0


def _show(folder: Path, found: dict[str, Any], console: Any) -> None:
    from grail.cli.terminal import render
    from grail.reporting.audit.tables import strongest_table

    console.print(render(strongest_table(found)))
    for sentence in found["sentences"]:
        console.print(f"- {sentence}", markup=False)
    passed = "passed" if found["passed"] else "not passed"
    last = f"audit: {passed} ({found['outcome']}); all figures: {folder / 'audit' / 'report.md'}"
    console.print(last, markup=False, soft_wrap=True)
    console.print(f"to put it into the report: grail report {folder}", markup=False, soft_wrap=True)
