"""Output that every terminal can show: what its encoding lacks is written in ASCII.

What a terminal would obey is written as its code: texts of users and files are shown, not done.
"""

import codecs
import re
import sys
from io import TextIOWrapper

_ASCII = {"→": "->", "±": "+/-", "\u2013": "-", "\u2014": "-", "✓": "+", "✗": "x"}
_HANDLER = "grail.signs"
_OBEYED = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
"""Control characters but tabs and line feeds, and what turns the direction of writing."""


def plain(text: str) -> str:
    """Return a text with a code such as x1b, after a backslash, for each control character."""
    return _OBEYED.sub(lambda sign: ascii(sign[0])[1:-1], text)


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
