"""A command that kills itself at the n-th write, step or batch, or at a moment that has a name."""

from __future__ import annotations

import importlib
import os
import re
import signal
from pathlib import Path

MOMENTS = {
    "os.replace": "write",
    "pathlib.Path.rename": "move",
    "pathlib.Path.replace": "log",
    "grail.training.loop.Loop._step": "step",
    "grail.importance.score.Scorer._batch": "score",
    "grail.run.pipeline.localize": "localize",
    "grail.evaluation.evaluate.collate": "read",
    "grail.model.generate.generate": "generate",
    "grail.run.pipeline.report": "report",
}
"""What can be interrupted, and what it is called here; each counts before and after."""


def main(arguments, kill, at, events):
    """Run ``grail ARGUMENTS`` and write every moment into ``events``.

    Die by SIGKILL at the ``kill``-th of them, or at the first whose name matches ``at``.
    """
    from grail.cli.main import main as command

    count = 0

    def happened(name):
        nonlocal count
        count += 1
        with open(events, "a") as file:
            file.write(name + "\n")
        if count == kill or (at and re.fullmatch(at, name)):
            os.kill(os.getpid(), signal.SIGKILL)

    for dotted, name in MOMENTS.items():
        owner, attribute = _found(dotted)
        setattr(owner, attribute, _watched(getattr(owner, attribute), name, happened))
    return command(arguments)


def _found(dotted):
    """Return the module or class that holds a dotted name, and the last part of it."""
    owner, _, attribute = dotted.rpartition(".")
    try:
        return importlib.import_module(owner), attribute
    except ModuleNotFoundError:
        module, _, kind = owner.rpartition(".")
        return getattr(importlib.import_module(module), kind), attribute


def _watched(inner, name, happened):
    def outer(*arguments, **more):
        happened(f"before {name} {_place(arguments)}")
        made = inner(*arguments, **more)
        happened(f"after {name} {_place(arguments)}")
        return made

    return outer


def _place(arguments):
    paths = [Path(a).name for a in arguments if isinstance(a, str | Path)]
    return paths[-1] if paths else ""
