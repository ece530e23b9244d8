"""The failures that carry a message for the user; knows nothing else of grail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

_OF_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


class InputError(ValueError):
    """The user's input cannot be used. The command line prints every problem and exits with 2.

    Attributes:
        problems: One text per problem, each once; ``str()`` joins them with line feeds.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[str]]]:
        """Keep the problems apart when the error is sent to another process."""
        return type(self), (self.problems,)


class DivergenceError(RuntimeError):
    """A loss or gradient stopped being a finite number. The command line exits with 1."""


class LostError(RuntimeError):
    """Another process of a run is gone, and this one ends. The command line exits with 1."""


@contextmanager
def collecting(problems: list[str], prefix: str = "") -> Iterator[None]:
    """Append the problems of an ``InputError`` raised inside, each after ``prefix``; go on."""
    try:
        yield
    except InputError as error:
        problems += [f"{prefix}{problem}" for problem in error.problems]


@contextmanager
def reading(file: object, advice: str = "Delete it and run again.") -> Iterator[None]:
    """Raise whatever a file of the wrong shape causes as an ``InputError`` that names the file.

    An error that begins with the file's name keeps its words.
    """
    try:
        yield
    except InputError:
        raise
    except _OF_SHAPE as error:
        if str(error).startswith(str(file)):
            raise InputError(str(error)) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{file} is damaged ({reason}). {advice}") from error


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest allowed word, or an empty string."""
    near = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
