"""``grail compare`` whose children are forks of it: they need not import what it has imported."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from types import SimpleNamespace


def main(arguments):
    """Run ``grail ARGUMENTS``."""
    from grail.cli.main import main as command
    from grail.comparison import processes as runner

    runner.subprocess = SimpleNamespace(
        Popen=Fork, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT
    )
    return command(arguments)


class Fork:
    """Stands for ``subprocess.Popen``: the same module, words, streams and session.

    The module ``grail.comparison.child`` binds the process to its parent and then becomes another
    command: not by exec here, but by a call.
    """

    def __init__(self, command, env, stdin, stdout, stderr, start_new_session):
        assert command[:3] == [sys.executable, "-m", "grail.comparison.child"]
        self.pid, self.returncode = os.fork(), None
        if self.pid:
            return
        try:
            if start_new_session:
                os.setsid()
            for stream in (1, 2):
                os.dup2(stdout.fileno(), stream)
            os.environ.update(env)
            sys.argv = command[2:]
            os.execv = _become
            from grail.comparison import child

            child.main()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)

    def wait(self):
        os.waitpid(self.pid, 0)


def _become(program, words):
    """Be ``python -m grail WORD...``."""
    from grail.cli.main import main as command

    code = command(words[3:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
