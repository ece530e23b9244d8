"""A child becomes grail, and dies with its parent, however that one dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grail import __version__
from grail.comparison.processes import BOOT

SOURCE = str(Path(__file__).parents[2] / "src")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")


def test_it_becomes_the_command():
    command = [sys.executable, "-c", BOOT, SOURCE, "--version"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.read() == f"grail {__version__}\n"
        assert process.wait() == 0


def test_a_file_of_the_current_folder_is_never_imported(tmp_path):
    for name in ("yaml", "secrets", "runpy", "grail"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('executed')")
    command = [sys.executable, "-c", BOOT, SOURCE, "validate", "none.yaml"]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        message = process.stderr.read()
        assert message.startswith("grail: error: none.yaml does not exist.")
        assert process.wait() == 2


def test_it_dies_with_a_killed_parent():
    word = "import grail.comparison.child as child, os, time; child.runpy.run_module = "
    word += "lambda *a, **b: (print(os.getpid(), flush=True), time.sleep(600)); child.run_child()"
    parent = (
        "import os, subprocess, sys\n"
        "alive, held = os.pipe()\n"
        f"subprocess.run([sys.executable, '-c', {word!r}], stdin=alive, start_new_session=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        env=ENVIRONMENT | {"PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert int(process.stdout.readline()) > 0
        process.kill()
        assert process.stdout.read() == ""  # ends only when the child, which holds it, has ended
        assert process.wait() == -signal.SIGKILL
