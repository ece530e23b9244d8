"""Multiple-choice rows: read as they are, refused with file and line."""

import json
from dataclasses import asdict

import pytest

from grail.errors import InputError
from grail.evaluation.general.items import Item, LocalTask, is_local, load_tasks, task_digests

ROW = {"id": "a", "context": "", "question": "q?", "choices": ["x", " y"], "answer": 1}


def put(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def test_rows_are_kept_as_they_are(tmp_path):
    other = ROW | {"id": "b", "context": " c\n", "question": " é ", "answer": 0}
    file = put(tmp_path / "sky.jsonl", ROW, other)
    (task,) = load_tasks([str(file)])
    assert task.name == "sky"
    assert [{**asdict(i), "choices": list(i.choices)} for i in task.items] == [ROW, other]


def test_a_folder_is_its_files_and_names_keep_their_place(tmp_path):
    folder = tmp_path / "many"
    put(folder / "b.jsonl", ROW)
    put(folder / "a.jsonl", ROW)
    (folder / "notes.txt").write_text("no task")
    found = load_tasks(["race", str(folder), "mmlu"])
    assert [t if isinstance(t, str) else t.name for t in found] == ["race", "a", "b", "mmlu"]


@pytest.mark.parametrize(
    ("entry", "local"),
    [("mmlu", False), ("a.jsonl", True), ("./mmlu", True), ("rows/", True), ("/x/y", True)],
)
def test_a_slash_or_an_ending_makes_a_path(entry, local):
    assert is_local(entry) == local


WRONG = [
    ("{", "line 1: not valid JSON"),
    ("[1]", "line 1: a row must be an object with named values, got list."),
    ({"id": "a", "question": "q"}, "line 1: context, choices, answer is missing."),
    (ROW | {"context": None}, "line 1: context must be text, got NoneType."),
    (ROW | {"context": "\ud83d"}, "line 1: context contains half a surrogate pair"),
    (ROW | {"id": "\udc00"}, "line 1: id contains half a surrogate pair"),
    (ROW | {"choices": ["x", "y\ud83d"]}, "line 1: choices[1] contains half a surrogate pair"),
    (json.dumps(ROW)[:-1] + ', "answer": 0}', "line 1: the key 'answer' is given twice."),
    ({"id": 3}, "line 1: context, question, choices, answer is missing."),
    (ROW | {"id": 3}, "line 1: id must be text, got int."),
    (ROW | {"choices": "xy"}, "line 1: choices must be a list of at least two texts"),
    (ROW | {"choices": ["x"], "answer": 0}, "line 1: choices must be a list of at least two"),
    (ROW | {"choices": ["x", " "]}, "line 1: choices must be a list of at least two texts"),
    (ROW | {"answer": 2}, "line 1: answer must be from 0 to 1 (there are 2 choices), got 2."),
    (ROW | {"answer": -1}, "line 1: answer must be from 0 to 1 (there are 2 choices), got -1."),
    (ROW | {"answer": "B"}, "line 1: answer must be the index of a choice, got str."),
    (ROW | {"answer": True}, "line 1: answer must be the index of a choice, got bool."),
]


@pytest.mark.parametrize(("row", "said"), WRONG)
def test_a_malformed_row_is_named(row, said, tmp_path):
    file = put(tmp_path / "t.jsonl", row)
    with pytest.raises(InputError) as caught:
        load_tasks([str(file)])
    first, last = str(caught.value).split("\n")
    assert first.startswith(f"evaluation.general_tasks: {file} {said}")
    assert last.startswith(f"evaluation.general_tasks: {file}: allowed: {{")


def test_problems_of_all_files_come_together_and_not_endlessly(tmp_path):
    many = put(tmp_path / "many.jsonl", ROW, *["{"] * 8)
    twice = put(tmp_path / "twice.jsonl", ROW, ROW | {"id": "b"}, ROW)
    empty = put(tmp_path / "empty.jsonl", "")
    entries = [str(many), str(twice), str(empty), str(tmp_path / "none.jsonl"), f"{tmp_path}/no"]
    with pytest.raises(InputError) as caught:
        load_tasks(entries)
    text = str(caught.value)
    assert [f"many.jsonl line {n}:" in text for n in (1, 2, 6, 7)] == [False, True, True, False]
    assert "many.jsonl: and 3 more malformed rows." in text
    assert "twice.jsonl line 3: its id is that of an earlier row." in text
    assert "empty.jsonl is empty." in text
    assert "none.jsonl does not exist." in text
    assert f"{tmp_path}/no is no folder and no *.jsonl file." in text


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no \*.jsonl file"):
        load_tasks([f"{tmp_path}/"])


def test_two_tasks_of_one_name_are_refused(tmp_path):
    file = put(tmp_path / "race.jsonl", ROW)
    with pytest.raises(InputError, match="'race' is given twice") as caught:
        load_tasks(["race", str(file), "race"])
    assert "\n" not in str(caught.value)


def test_a_digest_is_of_the_items_alone():
    items = (Item("a", "", "q", ("x", "y"), 0),)
    (name,), (one,) = zip(*task_digests([LocalTask("sky", items), "mmlu"]).items(), strict=True)
    assert name == "evaluation.sky.choices"
    turned = (Item("a", "", "q", ("x", "y"), 1),)
    assert task_digests([LocalTask("sea", items)]) == {"evaluation.sea.choices": one}
    assert task_digests([LocalTask("sky", turned)])[name] != one
