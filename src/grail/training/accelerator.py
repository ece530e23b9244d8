"""The processes and devices that a run trains on, through accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from grail.errors import InputError


def make_accelerator(trackers: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """Return accelerate's view of devices and processes, with the trackers writing to ``folder``.

    Processes may wait for each other as long as a stage takes: up to two days.

    Raises:
        InputError: for a tracker that is unknown or not installed, or a distributed setup other
            than plain data parallelism.
    """
    waiting = InitProcessGroupKwargs(timeout=timedelta(days=2))
    try:
        accelerator = Accelerator(
            log_with=list(trackers) or None,
            project_dir=folder,
            kwargs_handlers=[waiting],
            mixed_precision="no",
        )
    except (ImportError, ValueError) as error:
        raise InputError(f"unlearning.trackers: {error}") from error
    if accelerator.distributed_type.value not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise InputError(
            "grail trains with plain data parallelism, not with "
            f"{accelerator.distributed_type.value}. Launch with `accelerate launch "
            "--num_processes N`."
        )
    return accelerator
