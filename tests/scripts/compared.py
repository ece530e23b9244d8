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
    from grail.comparison import processes

    processes.subprocess = SimpleNamespace(Popen=Fork, STDOUT=subprocess.STDOUT)
    return command(arguments)


class Fork:
    """Stands for ``subprocess.Popen``: the same function, words, streams and session."""

    def __init__(self, command, env, stdin, stdout, stderr, start_new_session):
        assert command[:2] == [sys.executable, "-c"]
        self.pid, self.returncode = os.fork(), None
        if self.pid:
            return
        code = 70
        try:
            if start_new_session:
                os.setsid()
            for stream, source in enumerate((stdin, stdout.fileno(), stdout.fileno())):
                os.dup2(source, stream)
            os.closerange(3, 256)  # as Popen does: the parent alone holds its end of stdin
            os.environ.update(env)
            sys.argv = ["-c", *command[4:]]
            from grail.comparison.child import run_child

            run_child()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
