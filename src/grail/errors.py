"""The two failures that carry a message for the user; knows nothing else of grail."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What the user gave cannot be used. The command line prints the message and exits with 2."""


class DivergenceError(RuntimeError):
    """A loss or gradient stopped being a finite number. The command line exits with 1."""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest allowed word, or an empty string."""
    near = get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
