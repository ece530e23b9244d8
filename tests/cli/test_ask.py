"""`grail ask`: one question, questions of a pipe, and questions at a terminal."""

import builtins
import io
import json
import sys
from types import SimpleNamespace

import pytest

from grail.cli.main import main
from grail.handover import ask


class Typed(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


@pytest.fixture
def said(monkeypatch):
    """Two models that need no weights; each says its name and the question, with strange signs."""
    talk = SimpleNamespace(weights={"before": {}, "after": {}})

    def answers(talk, question, number, show):
        if question == "bad":
            raise ask.InputError("no such question")
        for name in talk.weights:
            show(name, "")
            show(name, f" {name}:\n{question}")
            show(name, "\x1b[2J!")
        return {name: f"{name}:\n{question}!" for name in talk.weights}

    monkeypatch.setattr(ask, "answers", answers)
    monkeypatch.setattr(ask, "open_talk", lambda *_: talk)
    return talk


BLOCK = "before  before:\n        {0}\ufffd[2J!\nafter   after:\n        {0}\ufffd[2J!\n"


def test_one_question_is_answered_by_each_model(said, tmp_path, capsys):
    assert main(["ask", str(tmp_path), "why?"]) == 0
    assert capsys.readouterr().out == BLOCK.format("why?")
    assert main(["ask", str(tmp_path), "why?", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"question": "why?", "before": "before:\nwhy?!", "after": "after:\nwhy?!"}
    assert main(["ask", str(tmp_path), "bad"]) == 2
    assert main(["ask", str(tmp_path), "why?", "--max-tokens", "0"]) == 2


def test_a_pipe_asks_line_by_line(said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\nbad\ntwo"))
    assert main(["ask", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"? one\n{BLOCK.format('one')}? bad\n? two\n{BLOCK.format('two')}\n"
    assert shown.err == "no such question\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert main(["ask", str(tmp_path), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["one", "two"]


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_a_terminal_asks_until_it_is_left(end, said, tmp_path, capsys, monkeypatch):
    typed = iter(["one", "  "])

    def line(prompt):
        assert prompt == "? "
        for text in typed:
            return text
        raise end

    monkeypatch.setattr(sys, "stdin", Typed())
    monkeypatch.setattr(builtins, "input", line)
    assert main(["ask", str(tmp_path)]) == 0
    assert capsys.readouterr().out == BLOCK.format("one") + "\n"


def test_a_purged_run_says_who_is_missing(said, tmp_path, capsys):
    del said.weights["before"]
    assert main(["ask", str(tmp_path), "why?"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("after ")
    assert "The model before was purged" in shown.err


def test_real_models_answer(finished_run, capsys):
    assert main(["ask", str(finished_run), "abc?", "--max-tokens", "4", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["question", "before", "after"]
