"""Multiple-choice rows from JSONL files, as local tasks; knows no model and no harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grail.data.readers import read_rows
from grail.errors import InputError, collecting
from grail.files import digest

LAYOUT = (
    '{"id": text, "context": text or "", "question": text, "choices": [text, text, ...], '
    '"answer": index of the right choice, from 0}'
)
KEYS = ("id", "context", "question", "choices", "answer")
SHOWN = 5  # malformed rows spelled out


@dataclass(frozen=True)
class Item:
    """One question with its choices; all text is kept exactly as it was given.

    ``answer`` is the index of the right choice, from 0; ``context`` may be empty.
    """

    id: str
    context: str
    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class LocalTask:
    """The items of one file; the task is named by the file's stem."""

    name: str
    items: tuple[Item, ...]


def is_local(entry: str) -> bool:
    """Tell whether an entry of ``evaluation.general_tasks`` is a path, not a name of lm-eval."""
    return "/" in entry or Path(entry).is_absolute() or entry.endswith(".jsonl")


def load_tasks(entries: Sequence[str]) -> tuple[LocalTask | str, ...]:
    """Read the local tasks among the entries; names stay names, and the order stays.

    Raises:
        InputError: one line per problem over all files, each with its file and line.
    """
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
    """Return the SHA-256 of each local task's items, whatever its file is called.

    The names have three parts, as those of all other rows have.
    """
    local = [task for task in tasks if isinstance(task, LocalTask)]
    return {f"evaluation.{t.name}.choices": digest([asdict(i) for i in t.items]) for t in local}


def _files(path: Path) -> list[Path]:
    """Return the file, or those of the folder in the order of their names."""
    if path.is_dir():
        if found := sorted(path.glob("*.jsonl")):
            return found
        raise InputError(f"{path} holds no *.jsonl file. Give a folder of such files, or one file.")
    if path.suffix != ".jsonl":
        raise InputError(f"{path} is no folder and no *.jsonl file. Give one of them.")
    if not path.exists():
        raise InputError(f"{path} does not exist. Correct the path.")
    return [path]


def _items(file: Path) -> tuple[Item, ...]:
    """Read one file; the first malformed rows are named together."""
    items, problems, seen = list[Item](), list[str](), set[str]()
    for where, row in read_rows(str(file)):
        with collecting(problems, f"{file} {where}: "):
            item = _item(row)
            if item.id in seen:
                raise InputError("its id stands in an earlier row. Give every row its own.")
            seen.add(item.id)
            items.append(item)
    if not items and not problems:
        problems.append(f"{file} is empty. A task needs at least one row.")
    if problems:
        more = len(problems) - SHOWN
        rest = [f"{file}: and {more} more malformed rows."] if more > 0 else []
        raise InputError([*problems[:SHOWN], *rest, f"{file}: allowed: {LAYOUT}."])
    return tuple(items)


def _item(row: Any) -> Item:
    """Check one row."""
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"a row must be an object with named values, got {type(row).__name__}.")
    if missing := [key for key in KEYS if key not in row]:
        raise InputError(f"{', '.join(missing)} is missing.")
    for key in ("id", "context", "question"):
        if not isinstance(row[key], str):
            raise InputError(f"{key} must be text, got {type(row[key]).__name__}.")
    _check_choices(row["choices"], row["answer"])
    return Item(row["id"], row["context"], row["question"], tuple(row["choices"]), row["answer"])


def _check_choices(choices: Any, answer: Any) -> None:
    """Refuse what is no choice among texts; errors repeat no text."""
    texts = isinstance(choices, list) and all(isinstance(c, str) and c.strip() for c in choices)
    if not texts or len(choices) < 2:
        raise InputError("choices must be a list of at least two texts, none of them empty.")
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise InputError(f"answer must be the index of a choice, got {type(answer).__name__}.")
    if not 0 <= answer < len(choices):
        raise InputError(
            f"answer must be from 0 to {len(choices) - 1} (there are {len(choices)} choices), "
            f"got {answer}."
        )
