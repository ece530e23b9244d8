"""What a training writes to disk: its checkpoint, complete or absent, and its log."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from grail.errors import InputError
from grail.files import PARTIAL, file_digest, read_json, replacing_folder, write_json, write_text
from grail.model.sharded import part, read_part, write_tensors
from grail.training.optimizer import Frozen

_STATE = "state.json"


@dataclass
class State:
    """Where a training is, besides its weights and its optimiser.

    Attributes:
        step: Optimiser steps done.
        epoch: Epoch that is being run.
        index: Steps of this epoch's plan that are done.
        direction: The moving average of retain gradients (empty without ``rectify``).
        task: The task's own memory, as JSON values.
        looks: What each look at the model found (``grail.training.looks``).
        best: The weights of the best look (empty where the last weights are kept).
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    direction: dict[str, Tensor] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    folder: Path | None,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: State,
    inputs: str,
    like: Mapping[str, nn.Parameter] | None = None,
) -> None:
    """Write weights, optimiser and state; replaces the previous checkpoint in one move.

    The files hold whole tensors, so that any number of processes can go on from them. Without a
    ``folder`` another process writes, and this one gives its parts. ``inputs`` is a digest of what
    the training was started from. ``like`` are the model's parameters, where ``parameters`` are
    this process's parts of them.
    """
    like, names = like or parameters, list(parameters)
    moments = {
        f"{index}.{key}": value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    files = {"weights": parameters, "direction": state.direction, "optimizer": moments}
    files["best"] = state.best
    owners = {key: like[names[int(key.partition(".")[0])]] for key in moments}
    with nullcontext() if folder is None else replacing_folder(folder) as partial:
        for name, tensors in files.items():
            write_tensors(partial / name if partial else None, tensors, {**like, **owners})
        if partial is None:
            return
        numbers = {"step": state.step, "epoch": state.epoch, "index": state.index}
        about = {"inputs": inputs, **numbers, "task": state.task, "looks": state.looks}
        digests = {name: file_digest(partial / name) for name in files}
        write_json(partial / _STATE, about | {"files": digests})


def load_checkpoint(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    inputs: str,
    like: Mapping[str, nn.Parameter] | None = None,
    frozen: Frozen | None = None,
) -> State:
    """Restore parameters and optimiser, and return the state; see ``save_checkpoint``.

    Without a checkpoint, with one of other inputs, or with one that is not as it was written,
    nothing is restored and the state is new. Of a parameter in ``frozen``, the free entries alone
    are trained here; a training in parts has written all of them.

    Raises:
        InputError: if it holds free entries alone and is read in parts.
    """
    about = _about(folder, inputs)
    if about is None:
        return State()
    like, names, frozen = like or parameters, list(parameters), frozen or {}
    _check_layout(folder, parameters, like, frozen)

    def read(file: str, key: str, name: str) -> Tensor:
        value = read_part(folder / file, key, like[name])
        whole = name in frozen and value.shape == frozen[name].shape
        return value[~frozen[name].cpu()] if whole else value

    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(read("weights", name, name))
    moments: dict[int, dict[str, Tensor]] = {}
    for name in _names(folder / "optimizer"):
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = read("optimizer", name, names[int(index)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    direction, best = (
        {n: read(file, n, n).to(parameters[n].device) for n in _names(folder / file)}
        for file in ("direction", "best")
    )
    return State(**about, direction=direction, best=best)


def _check_layout(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    like: Mapping[str, nn.Parameter],
    frozen: Frozen,
) -> None:
    with safe_open(str(folder / "weights"), "pt") as opened:
        for name, parameter in parameters.items():
            wanted = like[name] if part(like[name]) is not like[name] else parameter
            shapes = [list(t.shape) for t in (wanted, frozen.get(name, wanted))]
            if list(opened.get_slice(name).get_shape()) not in shapes:
                raise InputError(
                    f"{folder} was written by a process that keeps the free entries alone, and "
                    "this training is in parts (FSDP2). Go on without it, or delete that folder."
                )


def _names(file: Path) -> list[str]:
    with safe_open(str(file), "pt") as opened:
        return list(opened.keys())


def tell_reached(folder: Path, inputs: str, tell: Callable[[str], None]) -> None:
    """Say which steps a training has done already, if it has a checkpoint of the same inputs."""
    about = _about(folder, inputs)
    if about is not None:
        tell(f"steps 1 to {about['step']}")


def _about(folder: Path, inputs: str) -> dict[str, Any] | None:
    """Return the state in a checkpoint that is whole and of these inputs; else None."""
    try:
        about = read_json(folder / _STATE)
        digests = about.pop("files")
        changed = any(file_digest(folder / name) != sha for name, sha in digests.items())
        return None if about.pop("inputs") != inputs or changed else about
    except (OSError, ValueError, KeyError, AttributeError):
        return None


@contextmanager
def training_log(path: Path, steps: int, main: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a writer of JSON lines; the file gets its name when the block ends.

    The first ``steps`` lines of an interrupted run are kept. Only the ``main`` process writes; the
    writers of the others do nothing.
    """
    if not main:
        yield lambda _: None
        return
    partial = path.with_name(path.name + PARTIAL)
    old = partial if partial.exists() else path  # killed after the loop: it has its name already
    lines = old.read_text(encoding="utf-8").split("\n") if steps and old.exists() else []
    write_text(partial, "".join(line + "\n" for line in lines[:steps]))
    with partial.open("a", encoding="utf-8") as stream:

        def write(line: dict[str, Any]) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        yield write
    partial.replace(path)
