"""The same question in other words: the key ``paraphrases`` that a row of any layout may carry.

No stage but the audit reads them; digests of the data do not cover them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from grail.errors import InputError

KEY = "paraphrases"


def paraphrases_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's other prompts; none where it has no such key, or null.

    A text, as all cells of a CSV file are, holds the list as JSON; an empty one holds none.

    Raises:
        InputError: if it is anything but a list of texts. The texts are not repeated.
    """
    given = row.get(KEY)
    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InputError(f"{KEY} must be a list of prompts, as JSON in a CSV file.") from error
    if not given:
        return ()
    if not isinstance(given, list):
        raise InputError(f"{KEY} must be a list of prompts, got {type(given).__name__}.")
    for number, prompt in enumerate(given):
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"{KEY}[{number}] must be a prompt. Give text, or leave it out.")
    return tuple(given)
