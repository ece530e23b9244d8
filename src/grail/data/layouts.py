"""The layouts of a row: which keys hold its prompt, its answer and its paraphrases.

Errors never repeat a row's text: it may be private.
"""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from grail.errors import InputError, did_you_mean

Turns = tuple[tuple[str, str], ...]  # (role, text), oldest first
_PAIRS = (("prompt", "completion"), ("question", "answer"), ("text", "labels"))
_PAIRS += (("prompt", "answer"), ("question", "completion"))
_BESIDE = {"prompt": ("completion", "answer"), "question": ("answer", "completion")}
_BESIDE |= {"completion": ("prompt", "question"), "answer": ("question", "prompt")}
_BESIDE |= {"text": ("labels",), "labels": ("text",)}
"""A key of a layout -> those that may stand beside it."""
_KEYS = {*_BESIDE, "messages"}
_WORDS = {
    "prompt": ("prompt", "question", "q", "instruction", "input", "query", "user"),
    "completion": ("completion", "answer", "a", "response", "output", "reply", "assistant"),
}
"""What files that people keep call the two, the likelier first."""
_ROLES = ("system", "user", "assistant")
LAYOUTS = (
    '{"prompt" or "question", "completion" or "answer"}, {"text", "labels"}, or '
    '{"messages": [{"role", "content"}, ...]} ending in a user and an assistant turn'
)
_PARAPHRASES = "paraphrases"
_OWN = {*_KEYS, _PARAPHRASES}


def turns_of(row: Any) -> Turns:
    """Return the turns of a row in any layout. Errors never repeat its text: it may be private."""
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"a row must be an object with named values, got {type(row).__name__}.")
    for prompt, completion in _PAIRS:
        if prompt in row and completion in row:
            answer = text_of(row[completion], completion, empty=False)
            return ("user", text_of(row[prompt], prompt)), ("assistant", answer)
    if "messages" in row:
        return _chat(row["messages"])
    keys = sorted(_KEYS & set(row))  # another key may be private text: a CSV without a header
    beside = [key for known in keys for key in _BESIDE.get(known, ())] or _KEYS
    near = "".join(sorted({did_you_mean(str(key), beside) for key in set(row) - _KEYS}))
    wanted = "".join(f" Beside '{k}' stands {_either(_BESIDE[k])}." for k in keys if k in _BESIDE)
    if others := len(row) - len(keys):
        keys.append(f"{others} other{'s' * (others != 1)}")
    raise InputError(f"no known layout; keys found: {', '.join(keys) or 'none'}.{near}{wanted}")


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def with_keys(row: Any, columns: Mapping[str, str]) -> Any:
    """Return a row under the keys of a layout: by ``data.columns``, or written in another case.

    A row that has none of the columns, but the keys of a layout, is left as it is: it may be of
    another file.

    Raises:
        InputError: if columns are missing, one key stands for two values, or a key is nearly that
            of an optional value.
    """
    if not isinstance(row, dict):
        return row
    found = {str(key).strip().casefold(): key for key in row}
    if len(found) < len(row) and len({str(key) for key in row}) == len(row):
        doubled = [k for k in _KEYS if sum(str(n).strip().casefold() == k for n in row) > 1]
        if doubled:
            raise InputError(f"'{doubled[0]}' is given twice, in other cases. Keep one of them.")
    made = {key: row[found[key]] for key in _OWN if key in found} | row
    missing = [(key, name) for key, name in columns.items() if name.strip().casefold() not in found]
    if missing and (len(missing) < len(columns) or not _KEYS & found.keys()):
        raise InputError(_no_column(*missing[0], [str(key) for key in row]))
    if not missing:
        made |= {key: row[found[name.strip().casefold()]] for key, name in columns.items()}
    for key in found.keys() - _OWN:
        if get_close_matches(key, [_PARAPHRASES], cutoff=0.85):
            raise InputError(f"unknown key '{key}'. Did you mean '{_PARAPHRASES}'?")
    return made


def _no_column(key: str, name: str, names: Sequence[str]) -> str:
    """Say that a column is not there, and which are, unless they may be the first row's text."""
    here = f"{len(names)} column{'s' * (len(names) != 1)}"
    here += f" ({', '.join(names)})" * all(map(_is_title, names))
    return f"data.columns.{key}: the row has no '{name}' among {here}."


def _chat(messages: Any) -> Turns:
    """Check a conversation: known roles, ending in a user and an assistant turn."""
    if not isinstance(messages, list):
        raise InputError(f"messages must be a list of turns, got {type(messages).__name__}.")
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(messages):
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES:
            roles = ", ".join(_ROLES)
            raise InputError(f"messages[{number}] must have content, and a role out of {roles}.")
        turns.append((turn["role"], text_of(turn.get("content"), f"messages[{number}].content")))
    ending = " and ".join(role for role, _ in turns[-2:]) or "no turns"
    if ending != "user and assistant":
        raise InputError(f"messages must end in a user and an assistant turn, got {ending}.")
    text_of(turns[-1][1], f"messages[{len(turns) - 1}].content", empty=False)
    return tuple(turns)


def columns_of(rows: Sequence[Any]) -> dict[str, str]:
    """Return what is to be ``data.columns``; {} if the rows have a known layout already.

    Columns are told by words that such files use; two columns that are alone are prompt and answer,
    if their names may be names: in a file without a header the first row would be lost.
    """
    names = [str(key) for row in rows[:1] if isinstance(row, dict) for key in row]
    plain = {name.strip().casefold(): name for name in names}
    if any(prompt in plain and answer in plain for prompt, answer in _PAIRS) or "messages" in plain:
        return {}
    found = {
        key: next((plain[word] for word in words if word in plain), None)
        for key, words in _WORDS.items()
    }
    if None in found.values() and len(names) == len(found) and all(map(_is_title, names)):
        found = dict(zip(found, names, strict=True))
    return {} if None in found.values() else {k: name for k, name in found.items() if name}


def _is_title(name: str) -> bool:
    """Tell whether a name is one or two words, without digits and signs."""
    return re.fullmatch(r"[^\W\d]+([ -][^\W\d]+)?", name.strip()) is not None


def text_of(value: Any, name: str, empty: bool = True) -> str:
    """Return a value that is text in UTF-8, ``empty`` or not; ``name`` is its key in an error."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, got {type(value).__name__}.")
    if not empty and not value.strip():
        raise InputError(f"{name} is empty. Give the answer's text, or drop the row.")
    if re.search("[\ud800-\udfff]", value):
        problem = f"{name} contains half a surrogate pair, which is not text."
        raise InputError(f"{problem} Correct it, or drop the row.")
    return value


def paraphrases_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's other prompts; none if the key is missing, null or empty.

    In a CSV file, where every cell is text, the list is written as JSON.

    Raises:
        InputError: if it is anything but a list of texts. The texts are not repeated.
    """
    prompts = row.get(_PARAPHRASES)
    if isinstance(prompts, str) and prompts.strip():
        try:
            prompts = json.loads(prompts)
        except (ValueError, RecursionError) as error:
            problem = "must be a list of prompts, as JSON in a CSV file."
            raise InputError(f"{_PARAPHRASES} {problem}") from error
    if not prompts:
        return ()
    if not isinstance(prompts, list):
        kind = type(prompts).__name__
        raise InputError(f"{_PARAPHRASES} must be a list of prompts, got {kind}.")
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(
                f"{_PARAPHRASES}[{number}] must be a prompt. Give text, or leave it out."
            )
        text_of(prompt, f"{_PARAPHRASES}[{number}]")
    return tuple(prompts)
