"""The command line where no extra is installed."""

from __future__ import annotations

import sys

EXTRAS = ("beartype", "datasets", "lm_eval", "matplotlib", "pyarrow", "tensorboard", "triton")
"""Modules of the optional dependencies (pyproject.toml)."""


def main(arguments):
    """Run ``grail ARGUMENTS``; importing any of ``EXTRAS`` is an error."""
    sys.modules.update(dict.fromkeys(EXTRAS))
    from grail.cli.main import main as command

    return command(arguments)
