"""The items of general tasks (``OUT/general/TASK.jsonl``), read from their public sources.

data.json says which items are in which file; an item's id says where it is in its source.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

SOURCES = {
    "MLILAB-FedLLM": ("HaeChan0305/MLILAB-FedLLM", "d92730e8bacd7b3a61e551e015e40588e10234b4"),
    "order_dependency_problem": (
        *("zhouqb/order_dependency_problem", "c78952c019f7b3fe3c2c14a1dfc7eaeed2efee48"),
    ),
    "TruthX": ("ictnlp/TruthX", "a41093a6ae3bcbcb523759da782de0f329d03d91"),
    "common-bench": ("eric11eca/common-bench", "333b36954b0af62a4bda49e64685ca9ade943563"),
    "self-training-mcqa": (
        *("Liangtaiwan/self-training-mcqa", "04b17044c6cd9cee238a911cb123d63160ba3788"),
    ),
}
"""Folder in RAW -> repository and commit."""
Item = tuple[str, str, list[str], int]
"""Context, question, choices, and the place of the right one."""


def mmlu(raw: Path, subject: str, _: str, number: str) -> Item:
    """MMLU (MIT): the test split, by subject."""
    row = _tables(raw / f"MLILAB-FedLLM/data/mmlu/test/{subject}_test.csv")[int(number)]
    return "", row["question"], [row[f"choice{n}"] for n in range(4)], int(row["answer"])


def arc_challenge(raw: Path, _: str, name: str) -> Item:
    """ARC-Challenge (CC BY-SA 4.0): the test split."""
    rows = _lines(raw / "order_dependency_problem/data/arc/ARC-Challenge-Test.jsonl")
    row = {row["id"]: row for row in rows}[name]
    choices = row["question"]["choices"]
    labels = [choice["label"] for choice in choices]
    texts = [choice["text"] for choice in choices]
    return "", row["question"]["stem"], texts, labels.index(row["answerKey"])


def truthfulqa_mc1(raw: Path, number: str) -> Item:
    """TruthfulQA (Apache-2.0): one right choice, which is the first."""
    row = _json(raw / "TruthX/TruthfulQA/data/mc_task.json")[int(number)]
    targets = row["mc1_targets"]
    return "", row["question"], list(targets), list(targets.values()).index(1)


def social_iqa(raw: Path, _: str, number: str) -> Item:
    """Social IQa: the public dev split."""
    row = _lines(raw / "common-bench/data/socialiqa/dev.jsonl")[int(number)]
    return row["context"], row["question"], row["options"], row["options"].index(row["answer"])


def race(raw: Path, split: str, level: str, article: str, question: str) -> Item:
    """RACE (non-commercial research only): questions about articles."""
    row = _json(raw / f"self-training-mcqa/data/RACE/{split}/{level}/{article}.txt")
    number = int(question.removeprefix("q"))
    place = "ABCD".index(row["answers"][number])
    return row["article"], row["questions"][number], row["options"][number], place


TASKS: dict[str, Callable[..., Item]] = {
    f.__name__: f for f in (mmlu, arc_challenge, truthfulqa_mc1, social_iqa, race)
}


def items(raw: Path, task: str, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the items of a task; an id is what stands behind ``TASK/`` in the file."""
    for name in ids:
        context, question, choices, answer = TASKS[task](raw, *name.split("/"))
        about = {"id": f"{task}/{name}", "context": context, "question": question}
        yield about | {"choices": choices, "answer": answer}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


@cache
def _json(path: Path) -> Any:
    return json.loads(_text(path))


@cache
def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in _text(path).split("\n") if line.strip()]


@cache
def _tables(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_text(path), newline="")))
