"""What a training loop leaves on disk: its state, whole or absent, and its log.

Knows weights and optimiser states; knows nothing of losses, masks and rows' meaning.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from grail.files import PARTIAL, replacing_folder, write_text


@dataclass
class Position:
    """Where a loop stands.

    Attributes:
        step: Optimiser steps done.
        epoch: Epoch being run.
        index: Steps of this epoch's plan already done.
        seen: Row key -> (epoch, token accuracy 0-1) when last seen.
        planned: ``seen`` as it was when this epoch was planned.
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    planned: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """What a loop carries from step to step besides the weights.

    Attributes:
        optimizer: The optimiser with its moments.
        position: Where the loop stands.
        direction: The moving average of retain gradients, where the loop keeps one.
    """

    optimizer: torch.optim.Optimizer
    position: Position
    direction: Mapping[str, Tensor]


def save(folder: Path, parameters: Mapping[str, nn.Parameter], state: State, inputs: str) -> None:
    """Write weights and state; replaces the former checkpoint in one move."""
    with replacing_folder(folder) as partial:
        save_file({n: p.detach().contiguous() for n, p in parameters.items()}, partial / "weights")
        save_file({n: v.contiguous() for n, v in state.direction.items()}, partial / "direction")
        states = state.optimizer.state_dict()["state"]
        tensors = {
            f"{index}.{key}": value.detach().contiguous()
            for index, moments in states.items()
            for key, value in moments.items()
            if isinstance(value, Tensor)
        }
        save_file(tensors, partial / "optimizer")
        about = {"inputs": inputs, "position": asdict(state.position)}
        (partial / "position.json").write_text(json.dumps(about), encoding="utf-8")


def load(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    inputs: str,
) -> tuple[Position, dict[str, Tensor]]:
    """Restore what ``save`` wrote; return position and direction, anew where nothing fits.

    A checkpoint made from other inputs is another run's: it is not used.
    """
    file = folder / "position.json"
    if not file.is_file():
        return Position(), {}
    state = json.loads(file.read_text(encoding="utf-8"))
    if state["inputs"] != inputs:
        return Position(), {}
    weights = load_file(folder / "weights")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    _restore(optimizer, load_file(folder / "optimizer"))
    direction = load_file(folder / "direction")
    placed = {name: value.to(parameters[name].device) for name, value in direction.items()}
    return _position(state["position"]), placed


def discard(folder: Path) -> None:
    """Remove a checkpoint that was not used: once this run has begun its log, it fits no more."""
    shutil.rmtree(folder, ignore_errors=True)


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _position(raw: dict[str, Any]) -> Position:
    def pairs(values: dict[str, Any]) -> dict[str, tuple[int, float]]:
        return {key: (int(epoch), float(value)) for key, (epoch, value) in values.items()}

    return Position(
        raw["step"], raw["epoch"], raw["index"], pairs(raw["seen"]), pairs(raw["planned"])
    )


@contextmanager
def lines(path: Path, steps: int, main: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a writer of JSON lines; keeps the first ``steps`` lines of an interrupted run.

    The file gets its name when the loop ends.
    """
    if not main:
        yield lambda _: None
        return
    partial = path.with_name(path.name + PARTIAL)
    found = partial if partial.exists() else path  # killed after the loop: it has its name already
    old = found.read_text(encoding="utf-8").split("\n") if steps and found.exists() else []
    write_text(partial, "".join(line + "\n" for line in old[:steps]))
    with partial.open("a", encoding="utf-8") as stream:

        def write(line: dict[str, Any]) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        yield write
    partial.replace(path)
