"""Tune glibc's malloc so that freed memory is reused instead of being returned to the system.

By default glibc returns large blocks to the system as soon as they are freed; the next tensor
requests them again and gets zeroed pages, one page fault each. Every activation of every layer
pays for that. On a virtual machine the loss over a vocabulary of 49k, forward and backward, took
1.7 times as long that way, and 8 times as long next to another busy process.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
_LARGEST = 1 << 30  # blocks of more bytes are still returned: a model's weights, not activations

_LARGEST_IN_PARTS = 1 << 20
"""The same for a model in parts (FSDP2), whose blocks are whole for a moment each: what they leave
free lies between what stays, and was 1.3 of the 3.2 GB of a process with half of 110M weights."""

TUNED = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")
"""Variables by which a user tunes the allocator: then nothing is changed."""


def keep_freed() -> bool:
    """Keep freed blocks for the rest of the process; return whether that was done.

    For the command line, not for a library inside another program. The peak of memory stays about
    the same; it is held to the end.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in TUNED):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    parts = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    largest = _LARGEST_IN_PARTS if parts else _LARGEST
    return bool(mallopt(_MMAP_THRESHOLD, largest) and mallopt(_TRIM_THRESHOLD, -1))
