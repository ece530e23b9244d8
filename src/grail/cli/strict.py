"""``--strict``: the exit code 3 where the verdict on a run is not a pass."""

import argparse
import sys
from pathlib import Path
from typing import Any

NOT_PASSED = 3


def add_strict(*parsers: Any) -> None:
    """Add the option to parsers of commands."""
    text = "exit code 3 if the verdict is not a pass"
    for parser in parsers:
        parser.add_argument("--strict", action="store_true", help=text)


def strict_code(options: argparse.Namespace, folder: Path) -> int:
    """Return 3 if --strict was given and the verdict on a run is not a pass, else 0.

    The audit decides where there is one; without it, every light of the run's own checks has to be
    good or a remark, though the verdict then says "undecided".
    """
    from grail.reporting.audit.tables import read_audit
    from grail.reporting.run.verdict import run_checks
    from grail.reporting.tables import BAD, OPEN
    from grail.reporting.verdict import verdict
    from grail.results import read_results

    if not getattr(options, "strict", False):
        return 0
    results, audit = read_results(folder / "results.json"), read_audit(folder)
    found = verdict(results, audit)
    bad = {check.light for check in run_checks(results)} & {BAD, OPEN}
    passed = found.outcome == "pass" or (audit is None and not bad)
    return 0 if passed else refused(found.outcome, found.headline)


def refused(outcome: str, headline: str) -> int:
    """Say on stderr that the verdict is not a pass; return the exit code."""
    sys.stderr.write(f"grail: --strict: {outcome}: {headline}\n")
    return NOT_PASSED
