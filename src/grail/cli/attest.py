"""``grail attest`` and ``grail verify``; heavy imports happen inside the handlers."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from grail.cli.signs import plain
from grail.cli.strict import add_strict, refused

FOUND_CHANGED = 4
"""Exit code of ``verify`` where something was changed."""
MEASURED_AUDIT = "audit from measurements"
_ATTEST = "write attestation.json and attestation.html: one page on a finished run"
_VERIFY = "check a run directory or an attestation: exit code 4 if anything was changed since"


def add_attest(commands: Any) -> None:
    """Add both commands to the parser's commands."""
    attest = commands.add_parser("attest", help=_ATTEST, description=_ATTEST)
    attest.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a finished run")
    attest.add_argument("--request", required=True, metavar="ID", help="id of the request")
    attest.add_argument(
        "--oracle", type=Path, metavar="RUNDIR2", help="the oracle that the audit was made with"
    )
    attest.add_argument("--sign", type=Path, metavar="KEYFILE", help="ed25519 private key")
    attest.add_argument("--output", type=Path, metavar="DIR", help="default: the run directory")
    add_strict(attest)
    attest.settings = "run"
    attest.set_defaults(handler=run_attest)
    verify = commands.add_parser("verify", help=_VERIFY, description=_VERIFY)
    verify.add_argument("target", type=Path, metavar="FILE|RUNDIR", help="what is checked")
    verify.add_argument("--metrics", action="store_true", help="also measure both models again")
    verify.add_argument("--key", type=Path, metavar="PUBLICKEY", help="who must have signed")
    verify.settings = "run"
    verify.set_defaults(handler=run_verify)
    for parser in (attest, verify):
        parser.add_argument("--json", action="store_true", help="machine-readable summary")


def run_attest(options: argparse.Namespace) -> int:
    """Verify the run, attest it, and say where and with which outcome."""
    from grail.cli.terminal import quiet
    from grail.errors import InputError

    quiet()
    from grail.audit.founded import unfounded
    from grail.handover.attest import ATTESTATION, PAGE, attest, check_request
    from grail.handover.verify import Verified, check_run

    check_request(options.request)
    found = Verified()
    run = check_run(options.folder, found, {MEASURED_AUDIT: unfounded})
    if found.changes or run is None:
        first = f"{options.folder} is not as the run wrote it, so it cannot be attested:"
        raise InputError([first, *found.changes])
    output = options.output or options.folder
    made = attest(run, options.request, output, options.oracle, options.sign)
    if options.json:
        keys = ("request", "outcome", "headline", "not_covered", "signature")
        shown = {key: made[key] for key in keys if key in made}
        sys.stdout.write(json.dumps({"output": str(output / ATTESTATION), **shown}) + "\n")
    else:
        print(f"{made['outcome']}: {made['headline']}")
        print(f"attestation: {output / PAGE}, {output / ATTESTATION}")
        print(f"keep {output / 'attestation.key'} apart from them: it tells which rows were meant")
    passed = made["outcome"] == "pass" or not options.strict
    return 0 if passed else refused(made["outcome"], made["headline"])


def run_verify(options: argparse.Namespace) -> int:
    """Print each change; return 0 if there is none, else 4."""
    from grail.cli.terminal import Terminal, quiet

    quiet()
    from grail.audit.founded import unfounded
    from grail.handover.verify import verify

    also = {MEASURED_AUDIT: unfounded}
    found = verify(options.target, options.metrics, options.key, Terminal(), also)
    if options.json:
        sys.stdout.write(json.dumps(vars(found)) + "\n")
    else:
        for text in found.remarks:
            print(f"remark: {plain(text)}")
        if found.absent:
            print(f"nothing to check: {', '.join(found.absent)}.")
        for text in found.changes:
            print(f"CHANGED: {plain(text)}")
        if not found.changes:
            print(f"verified: nothing was changed ({', '.join(found.checked)}).")
    return FOUND_CHANGED if found.changes else 0
