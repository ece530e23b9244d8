"""Data sets from raw files: the right rows in the right order, and nothing with another hash."""

import hashlib
import json
from pathlib import Path

import data
import general
import pytest

from grail.errors import InputError

SHARED = Path(data.__file__).parents[2] / "shared" / "data"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


@pytest.fixture
def raw(tmp_path):
    """The four sources with a few rows."""
    put(
        tmp_path / "unlearn/dataset/KnowUnDo/privacy/unlearn_val.json",
        json.dumps([{"text": "Who?", "labels": "Ä."}, {"text": "What?", "labels": "That."}]),
    )
    lume = [{"input": f"in {n}", "output": f"out {n}", "task": "Task1"} for n in range(3)]
    put(tmp_path / "lume-llm-unlearning/data/retain.jsonl", "\n".join(map(json.dumps, lume)))
    tofu = [{"question": f"q {n}?", "answer": f"a {n}\u2028."} for n in range(3)]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in tofu)
    put(tmp_path / "closer-look-LLM-unlearning/data/tofu/forget10.json", lines)
    tales = tmp_path / "FairytaleQAData/data-by-origin"
    put(tales / "section-stories/x/cat-story.csv", 'section,text\n1,"One  day\na cat. It\nsat."\n')
    put(tales / "questions/x/cat-questions.csv", "question,answer1,answer2\nWho sat? ,the cat,a\n")
    put(
        tmp_path / "MLILAB-FedLLM/data/mmlu/test/virology_test.csv",
        "question,choice0,choice1,choice2,choice3,answer\nWhy?,a,b,c,d,2\n",
    )
    choices = [{"text": "Ice.", "label": "1"}, {"text": "Fog.", "label": "2"}]
    arc = {"id": "M_1", "question": {"stem": "What?", "choices": choices}, "answerKey": "2"}
    put(
        tmp_path / "order_dependency_problem/data/arc/ARC-Challenge-Test.jsonl",
        json.dumps(arc | {"id": "M_0"}) + "\n" + json.dumps(arc),
    )
    truths = [{"question": "True?", "mc1_targets": {"Yes.": 1, "No.": 0}}]
    put(tmp_path / "TruthX/TruthfulQA/data/mc_task.json", json.dumps(truths))
    siqa = {"context": "A.", "question": "And?", "options": ["x", "y"], "answer": "y"}
    put(tmp_path / "common-bench/data/socialiqa/dev.jsonl", json.dumps(siqa))
    race = {"article": "T.", "questions": ["0?", "1?"], "options": [["a"], ["b", "c"]]}
    folder = tmp_path / "self-training-mcqa/data/RACE/test/high"
    put(folder / "7.txt", json.dumps(race | {"answers": ["A", "B"]}))
    return tmp_path


@pytest.fixture
def listing(monkeypatch):
    """Stand in for data.json: rows of one file, with the hash of the given rows."""

    def make(name, rows, expected):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in expected)
        about = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "rows": rows}
        found = {"titles": {"x/cat": "The Cat"}, "files": {name: about}}
        monkeypatch.setattr(data, "listed", lambda: found)
        return text

    return make


def pair(prompt, completion):
    return {"prompt": prompt, "completion": completion}


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("knowundo_privacy/unlearn_val", None, [pair("Who?", "Ä."), pair("What?", "That.")]),
        ("lume_pii/retention_train", [2, 0], [pair("in 2", "out 2"), pair("in 0", "out 0")]),
        ("tofu_authors/unlearn_train", [1], [pair("q 1?", "a 1\u2028.")]),
        (
            "copyright_fairytale/retention_train",
            [["x/cat", 0]],
            [pair('Question about the story "The Cat": Who sat?', "the cat")],
        ),
        (
            "copyright_fairytale/unlearn_train",
            [["x/cat", 0, 0, 0, 14, 22]],
            [pair('Continue the passage from the story "The Cat":\n\nOne day a cat.', "It sat.")],
        ),
    ],
)
def test_rows_of_each_source(raw, listing, name, rows, expected):
    name = f"{name}.jsonl"
    text = listing(name, rows, expected)
    assert data.content(raw, name) == text


@pytest.mark.parametrize(
    ("task", "place", "expected"),
    [
        ("mmlu", "virology/test/0", ("", "Why?", ["a", "b", "c", "d"], 2)),
        ("arc_challenge", "test/M_1", ("", "What?", ["Ice.", "Fog."], 1)),
        ("truthfulqa_mc1", "0", ("", "True?", ["Yes.", "No."], 0)),
        ("social_iqa", "dev/0", ("A.", "And?", ["x", "y"], 1)),
        ("race", "test/high/7/q1", ("T.", "1?", ["b", "c"], 1)),
    ],
)
def test_items_of_each_general_task(raw, listing, task, place, expected):
    keys = ("context", "question", "choices", "answer")
    item = {"id": f"{task}/{place}"} | dict(zip(keys, expected, strict=True))
    name = f"general/{task}.jsonl"
    text = listing(name, [place], [item])
    assert data.content(raw, name) == text
    listing(name, [place.replace("0", "9").replace("M_1", "M_9").replace("q1", "q9")], [item])
    with pytest.raises(InputError, match="not that of the pinned revision"):
        data.content(raw, name)


def test_another_revision_is_refused(raw, listing):
    listing("lume_pii/retention_train.jsonl", [0], [pair("in 0", "changed")])
    with pytest.raises(InputError, match="SHA-256 is"):
        data.content(raw, "lume_pii/retention_train.jsonl")
    listing("lume_pii/retention_train.jsonl", [7], [])
    with pytest.raises(InputError, match="not that of the pinned revision"):
        data.content(raw, "lume_pii/retention_train.jsonl")


def test_what_is_missing_is_said(tmp_path, listing):
    (tmp_path / "unlearn").mkdir()
    found = data.commands(tmp_path)
    assert len(found) == 2 * (len(data.SOURCES) - 1)
    assert found[1][-1] == data.SOURCES["FairytaleQAData"][1]
    listing("lume_pii/retention_train.jsonl", [0], [])
    with pytest.raises(InputError, match="cannot be read"):
        data.content(tmp_path, "lume_pii/retention_train.jsonl")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("unwrapped", "a b\n\nc d"),
        ("lines", "a\nb\n\n c d"),
        ("whole", "a\nb\n\n  c d"),
        ("indented", "a b\n\n c d"),
    ],
)
def test_forms_of_a_passage(form, expected):
    assert data.passage("a\r\nb\n\n  c d", form) == expected


def test_every_listed_file_has_a_maker_and_every_row_a_title():
    listed = data.listed()
    assert len(listed["files"]) == 29
    for name, about in listed["files"].items():
        domain, file = name.split("/")
        assert domain in data.MAKERS or Path(file).stem in general.TASKS
        if name.startswith("copyright"):
            assert {row[0] for row in about["rows"]} <= listed["titles"].keys()


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the data of the tables are not beside the checkout"
)
def test_the_data_beside_the_checkout_have_the_listed_hashes():
    for name, about in data.listed()["files"].items():
        assert hashlib.sha256((SHARED / name).read_bytes()).hexdigest() == about["sha256"], name
