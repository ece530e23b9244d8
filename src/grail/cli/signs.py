"""Output that every terminal can show: what its encoding lacks is written in ASCII."""

from __future__ import annotations

import codecs
import sys
from io import TextIOWrapper

_ASCII = {"→": "->", "±": "+/-", "\u2013": "-", "\u2014": "-", "✓": "+", "✗": "x"}
_HANDLER = "grail.signs"


def substitute_signs() -> None:
    """Let standard output and error replace what they cannot encode, instead of raising."""
    codecs.register_error(_HANDLER, _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the first sign that cannot be encoded in ASCII, escaped where none is like it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    return _ASCII.get(sign) or ascii(sign)[1:-1], error.start + 1
