"""How long work says how far it is, without knowing who listens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Tick = Callable[[int, int, str], None]
"""Called with (done, total, note): units finished, units in all, a few words on the state."""


def silent(done: int, total: int, note: str) -> None:
    """Ignore every tick; the default of all library functions."""
    del done, total, note


@runtime_checkable
class Listener(Protocol):
    """Who is told about stages; the command line draws bars, a library user may log."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """Enter a stage that has work to do; the block receives its tick."""
        ...

    def skipped(self, name: str) -> None:
        """Hear that a stage is finished already."""
        ...

    def warn(self, text: str) -> None:
        """Hear something the user should know."""
        ...


class NullListener:
    """The listener that listens to nothing; warnings go to Python's own, unless ``silent``."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Hand out the silent tick."""
        del name
        yield silent

    def skipped(self, name: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Raise a Python warning."""
        if not self.silent:
            warnings.warn(text, stacklevel=2)
