"""The processes and devices that a run trains on, as accelerate sees them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from grail.errors import InputError


def make_accelerator(trackers: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """Return accelerate's view of devices and processes; waiting may take as long as a stage."""
    waiting = InitProcessGroupKwargs(timeout=timedelta(days=2))
    try:
        made = Accelerator(
            log_with=list(trackers) or None,
            project_dir=folder,
            kwargs_handlers=[waiting],
            mixed_precision="no",
        )
    except (ImportError, ValueError) as error:
        raise InputError(f"unlearning.trackers: {error}") from error
    if made.distributed_type.value not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise InputError(
            f"grail trains with plain data parallelism, not with {made.distributed_type.value}. "
            "Launch with `accelerate launch --num_processes N`."
        )
    return made
