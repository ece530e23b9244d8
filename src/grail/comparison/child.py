"""The first thing a child process does: see to it that it dies with its parent, then run grail.

`python -m grail.comparison.child PARENT WORD...` becomes `python -m grail WORD...`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # Linux; survives exec, so that nothing of grail needs to know of it


def main() -> None:
    """Bind this process to its parent where the system can, and become the command."""
    parent, *words = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # killed before the line above
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", "grail", *words])


if __name__ == "__main__":
    main()
