"""How much memory a way takes beyond what was there before it began."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import torch

from races.clock import Way

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
"""Writing 5 there sets the highest resident size back to the present one (Linux, proc(5))."""


def extra_gib(way: Way, device: str) -> float | None:
    """Run a way; return its peak beyond the start in GiB, or None where no system tells.

    On a CPU the resident size of the process, which should be a fresh one: what an earlier way has
    left to the allocator would be used again unseen. On CUDA what torch has allocated.
    """
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    if not _reset():
        way()
        return None
    before = _kib("VmRSS")
    way()
    return (_kib("VmHWM") - before) / 2**20


def _reset() -> bool:
    """Set the peak to the present size, without what the allocator keeps for later."""
    if not RESET.exists():
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other systems' keep less
    if trim is not None:
        trim(0)
    try:
        RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _kib(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    assert found, f"{STATUS} has no {name}"
    return int(found[1])
