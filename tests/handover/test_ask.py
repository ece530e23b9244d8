"""Each model answers as it did in the run's own evaluation, asked in the same words."""

import json

import pytest
import torch

from grail.config.file import load_config
from grail.errors import InputError
from grail.handover.ask import answers, encoded, open_talk
from grail.handover.opened import open_run
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.inputs import read_inputs


def first_row(run):
    file = run.parent / "data" / "privacy_unlearn_train.jsonl"
    return json.loads(file.read_text().splitlines()[0])


def test_before_knows_after_does_not_and_the_oracle_never_did(runs):
    talk = open_talk(runs["run"], runs["oracle"], 16, sample=False)
    row, pieces = first_row(runs["run"]), []
    found = answers(talk, row["prompt"], 0, lambda name, text: pieces.append((name, text)))
    assert list(found) == ["before", "after", "oracle"]
    assert found["before"] == row["completion"]
    assert row["completion"] not in (found["after"], found["oracle"])
    assert [name for name, text in pieces if not text] == list(found)
    for name, text in found.items():
        assert "".join(piece for own, piece in pieces if own == name).strip() == text
    assert answers(talk, row["prompt"], 1, lambda *_: None) == found


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_a_question_is_put_as_the_rows_were(template, finished, tiny_tokenizer):
    config = load_config(finished(data={"template": template}))
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    context.tokenizer = tiny_tokenizer(chat=True)
    for row in context.rows:
        question = encoded(context, row.sample.prompt)
        assert question.ids[: question.start] == row.ids[: row.start]
        assert question.end == row.end


def test_samples_follow_the_seed_and_the_number_of_the_question(finished_run):
    talk = open_talk(finished_run, None, 8, sample=True)
    one, again, other = (answers(talk, "abc?", n, lambda *_: None) for n in (0, 0, 1))
    assert one == again != other


def test_what_cannot_be_asked_is_refused(finished_run):
    talk = open_talk(finished_run, None, 8, sample=False)
    for question, problem in (
        (" ", "The question is empty"),
        ("a<eos>b", "^the question: its text holds <eos>"),
        ("a" * 600, "has no room for more"),
    ):
        with pytest.raises(InputError, match=problem):
            answers(talk, question, 0, lambda *_: None)


def test_an_answer_ends_where_the_model_has_no_room(finished_run):
    talk = open_talk(finished_run, None, 600, sample=False)
    question = "a" * 500
    row = encoded(open_run(finished_run), question)
    found = answers(talk, question, 0, lambda *_: None)
    assert all(len(text.encode()) <= 512 - row.start for text in found.values())


def test_an_oracle_must_be_one_of_the_same_model(runs, finished_run):
    with pytest.raises(InputError, match="is no run of preset exact"):
        open_talk(runs["run"], runs["same"], 8, sample=False)
    with pytest.raises(InputError, match="is of another model than"):
        open_talk(finished_run, runs["oracle"], 8, sample=False)
