"""Run the benchmarks that need nothing but this checkout: ``make benchmark``.

The comparison on real data needs files that are not part of grail: see README.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

for name in ("speed.py", "demo.py"):
    subprocess.run([sys.executable, str(Path(__file__).parent / name)], check=True)
