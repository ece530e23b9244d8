"""``python -m grail`` is the command."""

import os
import subprocess
import sys
from pathlib import Path

from grail import __version__


def test_the_module_is_the_command():
    source = Path(__file__).parents[1] / "src"
    found = subprocess.run(
        [sys.executable, "-m", "grail", "--version"],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == f"grail {__version__}\n"
