"""``grail run`` as torchrun starts it: each process does its part of every run in a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grail.cli.main import main


def run_all(folder):
    """Do the runs that ``FOLDER/runs.json`` lists: words, and whether FSDP2 is asked for."""
    import os

    for fsdp, *words in json.loads((Path(folder) / "runs.json").read_text()):
        os.environ |= {"ACCELERATE_USE_FSDP": str(fsdp).lower(), "FSDP_VERSION": "2"}
        if code := main(words):
            sys.exit(code)


if __name__ == "__main__":
    run_all(sys.argv[1])
