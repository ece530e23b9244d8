"""A child becomes grail, and dies with its parent, however that one dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grail import __version__

SOURCE = str(Path(__file__).parents[2] / "src")
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE}
CHILD = "grail.comparison.child"


def test_it_becomes_the_command():
    command = [sys.executable, "-m", CHILD, str(os.getpid()), "--version"]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert found.stdout == f"grail {__version__}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_it_does_not_begin_without_its_parent():
    command = [sys.executable, "-m", CHILD, "1", "--version"]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a child to its parent")
def test_it_dies_with_a_killed_parent():
    parent = (
        "import os, subprocess, sys\n"
        f"word = 'import {CHILD} as child, os, sys, time;'\n"
        "word += 'os.execv = lambda *a: (print(os.getpid(), flush=True), time.sleep(600));'\n"
        "word += 'child.main()'\n"
        "subprocess.run([sys.executable, '-c', word, str(os.getpid())])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert int(process.stdout.readline()) > 0
        process.kill()
        assert process.stdout.read() == ""  # ends only when the child, which holds it, has ended
