"""``grail report``: the pages of a finished run or comparison, from its files alone."""

import argparse
from pathlib import Path
from typing import Any

from grail.cli.strict import add_strict, strict_code

_ABOUT = "write report.md and report.html (of a comparison: its page, tables and figures) anew"


def add_report(commands: Any) -> None:
    """Add the command to the parser's commands."""
    report = commands.add_parser("report", help=_ABOUT, description=f"{_ABOUT}, from its files.")
    report.add_argument(
        "folder",
        type=Path,
        metavar="RUNDIR",
        help="directory of a finished run or comparison, or a run's YAML file",
    )
    report.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    add_strict(report)
    report.settings = "run"
    report.set_defaults(handler=run_report)


def run_report(options: argparse.Namespace) -> int:
    """Write the pages, print the verdict or the tables, and return the exit code.

    Nothing is trained or measured.
    """
    from grail.cli import output as endings
    from grail.config.file import COMPARISON, load_config
    from grail.errors import InputError

    folder: Path = options.folder
    if not folder.is_dir():
        folder = Path(load_config(folder).output)
    if (folder / COMPARISON).is_dir() and not (folder / "results.json").exists():
        if options.strict:
            raise InputError(f"--strict: {folder} is a comparison, which has no verdict.")
        from grail.reporting.comparison.files import read_comparison, write_all

        found = read_comparison(folder)
        remarks = write_all(found, folder)
        endings.comparison(found, folder, options.json, remarks)
        return 0
    from grail.reporting.run.page import report
    from grail.run import manifest

    manifest.require(folder, *manifest.REPORTED)
    manifest.drop(folder, *manifest.REPORT)
    report(folder)
    manifest.record(folder, *manifest.REPORT)
    endings.results(folder, options.json)
    return strict_code(options, folder)
