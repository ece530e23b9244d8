"""Progress reports: a ``Tick`` callback and a ``Listener`` for stages, without a user interface."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Tick = Callable[[int, int, str], None]
"""Called with (done, total, note): finished units, all units, and a short text such as the loss."""


def silent(done: int, total: int, note: str) -> None:
    """Do nothing: the default tick of library functions."""
    del done, total, note


@runtime_checkable
class Listener(Protocol):
    """Reports the stages of a run to a user: the command line draws progress bars."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """Return a context manager for the duration of a stage; it yields the stage's tick."""
        ...

    def skipped(self, name: str) -> None:
        """Report that a stage was already finished and is not run again."""
        ...

    def warn(self, text: str) -> None:
        """Report a warning."""
        ...


class NullListener:
    """Reports nothing except warnings, which become Python warnings unless ``silent``."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Yield the tick that does nothing."""
        del name
        yield silent

    def skipped(self, name: str) -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Raise a Python warning."""
        if not self.silent:
            warnings.warn(text, stacklevel=2)
