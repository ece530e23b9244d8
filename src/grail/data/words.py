"""Text as words, with one meaning in every script; knows nothing of samples and measures."""

import re
from unicodedata import normalize

import regex

_ALONE = (
    r"[[\p{L}&&[\p{WB=Other}\p{WB=Katakana}\p{LB=AK}\p{LB=AS}\p{Yi}]]"
    r"[\p{So}--[\x00-\xff\ufffd]]]"
)
"""Starts a word of one character: letters of scripts without spaces between words, as Unicode's
rules for word and line breaks know them (UAX 29, UAX 14), and emoji and other pictures."""
_WORD = rf"(?={_ALONE})\X\p{{M}}*|(?:(?!{_ALONE})[\p{{L}}\p{{N}}][\p{{M}}\u200c\u200d]*)+"
_WORDS = regex.compile(_WORD, regex.V1)
_SIGNS = regex.compile(rf"{_WORD}|(?=\S)\X", regex.V1)
_ASCII = re.compile("[^\\W_]+")  # equal to _WORDS there, and much faster


def words_of(text: str, signs: bool = False) -> list[str]:
    """Return the words of a text in lower case, composed (NFC).

    A word is a run of letters and digits with their combining marks; in a script without spaces it
    is one character, and an emoji is a word. With ``signs`` every other character that is not
    white space is a word too.
    """
    text = normalize("NFC", text).lower()
    if signs:
        return _SIGNS.findall(text)
    return (_ASCII if text.isascii() else _WORDS).findall(text)
