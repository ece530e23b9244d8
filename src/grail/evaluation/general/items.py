"""The items of local general tasks: multiple-choice rows from JSONL files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grail.data.layouts import text_of
from grail.data.readers import read_rows
from grail.errors import InputError, collecting
from grail.files import digest

_LAYOUT = (
    '{"id": text, "context": text or "", "question": text, "choices": [text, text, ...], '
    '"answer": index of the right choice, from 0}'
)
_KEYS = ("id", "context", "question", "choices", "answer")
_SHOWN = 5  # malformed rows in a message


@dataclass(frozen=True)
class Item:
    """One question with its choices, all text unchanged.

    ``answer`` is the index of the right choice, from 0; ``context`` may be empty.
    """

    id: str
    context: str
    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class LocalTask:
    """The items of one file; its stem is the task's name."""

    name: str
    items: tuple[Item, ...]


def is_local(entry: str) -> bool:
    """Return whether an entry of ``evaluation.general_tasks`` is a path, not a task of lm-eval."""
    return "/" in entry or Path(entry).is_absolute() or entry.endswith(".jsonl")


def load_tasks(entries: Sequence[str]) -> tuple[LocalTask | str, ...]:
    """Read the local tasks among the entries, in order, or refuse them; other names stay names."""
    tasks, problems = list[LocalTask | str](), list[str]()
    for entry in entries:
        if not is_local(entry):
            tasks.append(entry)
            continue
        files: list[Path] = []
        with collecting(problems):
            files = _files(Path(entry))
        for file in files:
            with collecting(problems):
                tasks.append(LocalTask(file.stem, _items(file)))
    names = [task if isinstance(task, str) else task.name for task in tasks]
    problems += [
        f"'{name}' is given twice. Results are kept by a task's name: rename or drop one of them."
        for name in dict.fromkeys(n for n in names if names.count(n) > 1)
    ]
    if problems:
        raise InputError(f"evaluation.general_tasks: {problem}" for problem in problems)
    return tuple(tasks)


def task_digests(tasks: Sequence[LocalTask | str]) -> dict[str, str]:
    """Return {"evaluation.TASK.choices": SHA-256 of the items} for the local tasks."""
    local = [task for task in tasks if isinstance(task, LocalTask)]
    return {f"evaluation.{t.name}.choices": digest([asdict(i) for i in t.items]) for t in local}


def _files(path: Path) -> list[Path]:
    """Return the file, or the folder's files sorted by name."""
    if path.is_dir():
        if files := sorted(path.glob("*.jsonl")):
            return files
        raise InputError(f"{path} holds no *.jsonl file. Give a folder of such files, or one file.")
    if path.suffix != ".jsonl":
        raise InputError(f"{path} is no folder and no *.jsonl file. Give one of them.")
    if not path.exists():
        raise InputError(f"{path} does not exist. Correct the path.")
    return [path]


def _items(file: Path) -> tuple[Item, ...]:
    """Read one file; the error names the first malformed rows together."""
    items, problems, seen = list[Item](), list[str](), set[str]()
    for where, row in read_rows(str(file)):
        with collecting(problems, f"{file} {where}: "):
            item = _item(row)
            if item.id in seen:
                raise InputError("its id is that of an earlier row. Give every row its own.")
            seen.add(item.id)
            items.append(item)
    if not items and not problems:
        problems.append(f"{file} is empty. A task needs at least one row.")
    if problems:
        more = len(problems) - _SHOWN
        rest = [f"{file}: and {more} more malformed rows."] if more > 0 else []
        raise InputError([*problems[:_SHOWN], *rest, f"{file}: allowed: {_LAYOUT}."])
    return tuple(items)


def _item(row: Any) -> Item:
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"a row must be an object with named values, got {type(row).__name__}.")
    if missing := [key for key in _KEYS if key not in row]:
        raise InputError(f"{', '.join(missing)} is missing.")
    for key in ("id", "context", "question"):
        text_of(row[key], key)
    _check_choices(row["choices"], row["answer"])
    return Item(row["id"], row["context"], row["question"], tuple(row["choices"]), row["answer"])


def _check_choices(choices: Any, answer: Any) -> None:
    """Refuse anything but an index into a list of texts; errors repeat no text."""
    texts = isinstance(choices, list) and all(isinstance(c, str) and c.strip() for c in choices)
    if not texts or len(choices) < 2:
        raise InputError("choices must be a list of at least two texts, none of them empty.")
    for number, choice in enumerate(choices):
        text_of(choice, f"choices[{number}]")
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise InputError(f"answer must be the index of a choice, got {type(answer).__name__}.")
    if not 0 <= answer < len(choices):
        raise InputError(
            f"answer must be from 0 to {len(choices) - 1} (there are {len(choices)} choices), "
            f"got {answer}."
        )
