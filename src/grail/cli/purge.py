"""``grail purge``: its arguments, its question and what it prints; heavy imports are inside."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grail.cli.plan import in_bytes

if TYPE_CHECKING:
    from grail.handover.purge import Knowing

_ABOUT = "delete from a run directory all that still knows what was removed; the evidence stays"


def add_purge(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser("purge", help=_ABOUT, description=_ABOUT)
    parser.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a run")
    parser.add_argument("--yes", action="store_true", help="delete without a question")
    parser.add_argument("--json", action="store_true", help="machine-readable summary on stdout")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> int:
    from grail.handover.purge import knowing, purge

    items = knowing(options.folder)
    if not options.json:
        _list(options.folder, items)
    if items and not options.yes and not _agreed(options.folder, items):
        sys.stderr.write("Nothing was deleted.\n")
        return 1
    left = purge(options.folder, items)
    if options.json:
        deleted = [{"path": str(i.path), "what": i.what, "bytes": i.size} for i in items]
        about = {"output": str(options.folder), "deleted": deleted, "left": left}
        sys.stdout.write(json.dumps(about) + "\n")
        return 0
    lines = [f"deleted: {in_bytes(sum(item.size for item in items))}; manifest.json says what."]
    lines += ["Not grail's to delete, and they know:"] if left else []
    sys.stdout.write("\n".join([*(lines if items else lines[1:]), *left]) + "\n")
    return 0


def _list(folder: Path, items: Sequence[Knowing]) -> None:
    """Show what will be deleted."""
    head = "These still know:" if items else f"{folder}: nothing is left to delete."
    sys.stdout.write(f"{head}\n")
    for item in items:
        sys.stdout.write(f"  {in_bytes(item.size):>9}  {item.path}  ({item.what})\n")


def _agreed(folder: Path, items: Sequence[Knowing]) -> bool:
    """Ask whoever sits at the terminal; InputError if nobody does."""
    from grail.errors import InputError

    if not sys.stdin.isatty():
        raise InputError(
            f"purge: {folder} has {len(items)} things to delete for good, and nobody can be asked. "
            "Give --yes to delete them."
        )
    sys.stderr.write("Delete them for good? There is no way back. Type yes: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "yes"
