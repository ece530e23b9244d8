"""What a child process runs: grail, until it is done or its parent is gone."""

from __future__ import annotations

import os
import runpy
import signal
import threading


def run_child() -> None:
    """Run ``grail`` with the words in ``sys.argv``; end this process group with its parent.

    The parent holds the other end of standard input, which the system closes when the parent dies,
    however it dies.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("grail", run_name="__main__")


def _end_with_parent() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
