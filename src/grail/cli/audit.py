"""``grail audit``: its arguments and what it prints; heavy imports happen inside the handler."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from grail.cli.strict import add_strict, strict_code

_ABOUT = "attack the unlearned model of a finished run, measure again, and say what comes back"


def add_audit(commands: Any) -> None:
    """Add the command to the parser's commands."""
    audit = commands.add_parser("audit", help=_ABOUT, description=_ABOUT)
    audit.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a finished run")
    audit.add_argument(
        "--oracle", type=Path, metavar="RUNDIR2", help="run of preset exact on the same data"
    )
    audit.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="audit.KEY=VALUE"
    )
    audit.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    add_strict(audit)
    audit.settings = "run: audit"
    audit.set_defaults(handler=run_audit)


def run_audit(options: argparse.Namespace) -> int:
    """Audit, print the verdict, and return the exit code: 0 whatever it is, but for --strict."""
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet, render

    quiet()
    from grail.audit.audit import FILE, audit_run
    from grail.reporting.audit.lights import lights_table
    from grail.reporting.verdict import verdict
    from grail.results import read_results

    folder = options.folder
    audit = audit_run(folder, options.oracle, options.set, Terminal())
    if options.json:
        keys = ("outcome", "passed", "outcomes", "sentences", "measured")
        summary = {"output": str(folder / FILE), **{key: audit[key] for key in keys}}
        sys.stdout.write(json.dumps(summary) + "\n")
        return strict_code(options, folder)
    console = Console(highlight=False)
    console.print(render(lights_table(audit), console.width))
    for sentence in audit["sentences"]:
        console.print(f"- {sentence}", markup=False)
    outcome = f"{'passed' if audit['passed'] else 'not passed'} ({audit['outcome']})"
    verdict_line = verdict(read_results(folder / "results.json"), audit).sentences[0]
    for line in (
        f"verdict: {verdict_line}",
        f"audit: {outcome}; all figures: {folder / 'audit' / 'report.md'}",
        f"to put it into the report: grail report {folder}",
    ):
        console.print(line, markup=False, soft_wrap=True)
    return strict_code(options, folder)
