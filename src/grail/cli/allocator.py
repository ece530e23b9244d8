"""Memory that was freed stays with the process, for the next tensor.

Left alone, glibc gives large blocks back to the system as soon as they are freed; the next tensor
asks for them anew, and the system hands them out as zeroed pages, one at each first touch. Every
activation of every layer pays that. On a virtual machine the loss over a vocabulary of 49k, both
passes, took 1.7 times as long that way, and 8 times beside another busy process.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""

LARGEST = 1 << 30
"""Bytes of a block from which on it is given back after all: a model's weights, not activations."""

CHOSEN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")
"""Variables by which a user chooses how memory is allocated: then nothing is changed."""


def keep_freed() -> bool:
    """Keep freed blocks for the rest of the process; return whether that was done.

    For a process of its own (the command line), not for a library in somebody's program. The most
    memory that is held at once stays about the same; it is held to the end.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in CHOSEN):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, -1))
