"""The processes and devices that a run trains on, through accelerate."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, LoggerType

from grail.config.merge import flatten
from grail.errors import InputError, did_you_mean

_READ = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "FORK_LAUNCHED")
_READ += ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""How the names of the environment variables begin that accelerate reads."""
_FSDP = "ACCELERATE_USE_FSDP"


def make_accelerator(trackers: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """Return accelerate's view of devices and processes, with the trackers writing to ``folder``.

    Processes may wait for each other as long as a stage takes: up to two days.

    Raises:
        InputError: for a tracker that is unknown or not installed, environment variables that
            accelerate cannot follow, or a distributed setup other than plain data parallelism.
    """
    check_trackers(trackers)
    _check_launch()
    given = {name: value for name, value in os.environ.items() if name.startswith(_READ)}
    fsdp = os.environ.pop(_FSDP, None)  # grail puts the model in parts itself
    try:
        accelerator = Accelerator(
            log_with=list(trackers) or None,
            project_dir=folder,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=2))],
            mixed_precision="no",
        )
    except Exception as error:  # a wrong value is a ValueError, a KeyError, a RuntimeError, ...
        if not given:
            raise
        values = ", ".join(f"{name}={value}" for name, value in sorted(given.items()))
        raise InputError(
            f"accelerate cannot follow its environment variables ({values}): "
            f"{type(error).__name__}: {str(error).rstrip('.')}. Unset or correct them; grail needs "
            "none."
        ) from error
    finally:
        if fsdp is not None:
            os.environ[_FSDP] = fsdp
    kind = accelerator.distributed_type.value
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise InputError(
            f"grail trains with data parallelism or FSDP2, not with {kind}. Launch with "
            "`accelerate launch --num_processes N`, for FSDP2 with --use_fsdp --fsdp_version 2."
        )
    return accelerator


def in_parts() -> bool:
    """Tell whether the launch asks for FSDP2: several processes that have a part of the model."""
    return os.environ.get(_FSDP, "").lower() == "true" and int(os.environ.get("WORLD_SIZE", 1)) > 1


def _check_launch() -> None:
    """Refuse what ``accelerate launch`` can ask for and grail would leave out."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise InputError(
            "DeepSpeed is not supported: its optimizers hold the weights in flat buffers of their "
            "own, where a mask by entry cannot be applied and proved. Use FSDP2: accelerate launch "
            "--use_fsdp --fsdp_version 2 (examples/launch/fsdp2.yaml)."
        )
    if not in_parts():
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise InputError("FSDP version 1 is not supported. Use accelerate's fsdp_version: 2.")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true":
        raise InputError(
            "fsdp_offload_params is not supported. Set it to false, or use more processes."
        )


def start_trackers(accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
    """Start the trackers that the accelerator was made with; their own files are in its folder.

    ``settings`` are those of the training, which are logged with it. InputError if a tracker cannot
    start, for example because nobody is logged in.
    """
    names = [str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with]
    if not names:
        return
    plain = {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in flatten(settings)
    }
    own = {"wandb": {"dir": str(accelerator.project_dir)}}
    try:
        accelerator.init_trackers("grail", config=plain, init_kwargs=own)
    except Exception as error:  # each tracker fails in its own way
        raise InputError(
            f"unlearning.trackers: {', '.join(names)} cannot start ({type(error).__name__}: "
            f"{str(error).strip().rstrip('.')}). Log in or configure it, or leave it out."
        ) from error


def check_trackers(trackers: Sequence[str]) -> None:
    """Refuse what accelerate does not know, and what it would leave out: it is not installed."""
    installed = {str(tracker) for tracker in get_available_trackers()}
    installed |= LOGGER_TYPE_TO_CLASS.keys() - set(LoggerType.list())  # registered by the user
    for tracker in trackers:
        if tracker in LOGGER_TYPE_TO_CLASS or tracker == "all":
            if tracker in installed or (tracker == "all" and installed):
                continue
            problem = f"{tracker} is not installed. Install it, or leave it out."
        else:
            allowed = ["all", *sorted(LOGGER_TYPE_TO_CLASS)]
            hint = did_you_mean(tracker, allowed)
            problem = f"'{tracker}' is not known.{hint} Allowed: {', '.join(allowed)}."
        raise InputError(f"unlearning.trackers: {problem}")
