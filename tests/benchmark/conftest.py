"""The benchmark's scripts lie beside the package: they import each other by their folder."""

import sys
from pathlib import Path

import forks
import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmark"

sys.path.insert(0, str(BENCHMARK))


@pytest.fixture(autouse=True)
def _one_fork_server(monkeypatch):
    """A process has one fork server: all tests start it with the same modules."""
    from races import worker

    monkeypatch.setattr(worker, "PRELOADED", forks.PRELOADED)
