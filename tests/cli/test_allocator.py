"""Freed memory is kept: seen in the pages that the system must hand out."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from grail.cli import allocator
from grail.cli.allocator import TUNED

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")

SCRIPT = """
import resource, sys
import numpy as np
from grail.cli.allocator import keep_freed

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed() if sys.argv[1] == "keep" else None
np.ones(1 << 24)
before = pages()
for _ in range(4):
    np.ones(1 << 24)  # 128 MiB, above what glibc would ever keep by itself
print(kept, pages() - before)
"""


def said(way, **more):
    """What keep_freed returned, and the pages that four equal arrays took after a first."""
    plain = {name: value for name, value in os.environ.items() if name not in TUNED}
    source = str(Path(__file__).parents[2] / "src")
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, way],
        env={**plain, "PYTHONPATH": source, **more},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, pages = found.stdout.split()
    return kept, int(pages)


@needs_glibc
def test_a_block_that_was_freed_is_used_again():
    (_, anew), (kept, again) = said("leave"), said("keep")
    assert kept == "True"
    assert again * 50 < anew
    kept, parted = said("keep", ACCELERATE_USE_FSDP="true")
    assert kept == "True"
    assert again * 50 < parted, "a model in parts gives blocks back"


@pytest.mark.parametrize("name", TUNED)
def test_what_the_user_chose_stands(name, monkeypatch):
    for other in TUNED:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", ""))
    tuned = []
    monkeypatch.setattr(
        allocator.ctypes,
        "CDLL",
        lambda _: SimpleNamespace(mallopt=lambda *words: not tuned.append(words)),
    )
    assert allocator.keep_freed() is True
    assert len(tuned) == 2
    monkeypatch.setenv(name, "")
    assert allocator.keep_freed() is False
    assert len(tuned) == 2


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)  # calling it would fail
    assert allocator.keep_freed() is False
