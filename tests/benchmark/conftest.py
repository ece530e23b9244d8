"""The benchmark's scripts lie beside the package: they import each other by their folder."""

import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmark"

sys.path.insert(0, str(BENCHMARK))
