"""A command that kills itself with SIGKILL at a chosen write, step or batch."""

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
    "grail.run.pipeline.make_mask": "localize",
    "grail.evaluation.evaluate.collate": "read",
    "grail.model.generate.generate": "generate",
    "grail.run.pipeline.report": "report",
}
"""Function -> the name of its calls: each call has a moment before it and one after it."""


def main(arguments, kill, at, events):
    """Run ``grail ARGUMENTS`` and return its exit code; ``events`` takes the names of all moments.

    The process kills itself at moment number ``kill``, or at the first whose name matches the
    regular expression ``at``.
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
        owner, attribute = _owner(dotted)
        setattr(owner, attribute, _counted(getattr(owner, attribute), name, happened))
    return command(arguments)


def _owner(dotted):
    """Return the module or class of a dotted name, and the name of the attribute."""
    owner, _, attribute = dotted.rpartition(".")
    try:
        return importlib.import_module(owner), attribute
    except ModuleNotFoundError:
        module, _, class_name = owner.rpartition(".")
        return getattr(importlib.import_module(module), class_name), attribute


def _counted(inner, name, happened):
    def outer(*arguments, **more):
        happened(f"before {name} {_file_name(arguments)}")
        result = inner(*arguments, **more)
        happened(f"after {name} {_file_name(arguments)}")
        return result

    return outer


def _file_name(arguments):
    paths = [Path(a).name for a in arguments if isinstance(a, str | Path)]
    return paths[-1] if paths else ""
