"""Processes that start at once, for whoever asks in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import grail

SCRIPTS = Path(__file__).parent


class Forks:
    """Processes that start at once: forks of one that has imported grail (``scripts/server.py``).

    Its hashes of text, and with them the order of sets, are not those of this process.
    """

    def __init__(self, nowhere):
        own = os.environ.get("PYTHONHASHSEED")
        environment = os.environ | {
            "PYTHONPATH": str(Path(grail.__file__).parents[1]),
            "PYTHONHASHSEED": "4711" if own != "4711" else "4712",
            "OMP_NUM_THREADS": "1",
            "GIT_DIR": str(nowhere),
        }
        call, pipe = [sys.executable, str(SCRIPTS / "server.py")], subprocess.PIPE
        self.server = subprocess.Popen(call, env=environment, stdin=pipe, stdout=pipe, text=True)

    def start(self, name, *arguments, log, **environment):
        """Let a fork call ``main(*arguments)`` of ``scripts/NAME.py``; return its pid."""
        words = [str(a) if isinstance(a, Path) else a for a in arguments]
        script = str(SCRIPTS / f"{name}.py")
        order = {"script": script, "arguments": words, "log": str(log), "environment": environment}
        return self._ask(order)

    def wait(self, pid, seconds=240):
        """Return the exit code of a fork that was started, once it has ended.

        One that hangs is aborted after so many seconds (exit code -6).
        """
        return self._ask({"wait": pid, "seconds": seconds})

    def run(self, name, *arguments, log, **environment):
        """Start, wait, and return the exit code; what is said goes to the file ``log``."""
        return self.wait(self.start(name, *arguments, log=log, **environment))

    def close(self):
        with self.server:
            self.server.stdin.close()

    def _ask(self, order):
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of forks has ended: exit code {self.server.wait()}")
        return int(answer)
