"""`grail purge` asks before it deletes."""

import io
import json
import sys

import pytest

from grail.cli.main import main


class Typed(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self):
        return True


@pytest.fixture
def folder(finished, tmp_path):
    finished()
    return tmp_path / "run"


def kept(folder):
    return (folder / "vanilla" / "adapter_model.safetensors").exists()


def test_nobody_to_ask_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert main(["purge", str(folder)]) == 2
    shown = capsys.readouterr()
    assert "Give --yes" in shown.err
    assert f"{folder / 'scores'}  (gradients of the rows)" in shown.out
    assert kept(folder)


@pytest.mark.parametrize(("typed", "code"), [("no\n", 1), ("", 1), ("Yes\n", 0)])
def test_whoever_sits_there_is_asked(typed, code, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed(typed))
    assert main(["purge", str(folder)]) == code
    assert kept(folder) == bool(code)
    assert ("Nothing was deleted." in capsys.readouterr().err) == bool(code)


def test_the_summary_lists_what_was_deleted_and_what_is_left(folder, tmp_path, capsys):
    assert main(["purge", str(folder), "--yes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    places = [item["path"] for item in found["deleted"]]
    assert places == [
        str(folder / "vanilla" / "adapter_model.safetensors"),
        str(folder / "scores"),
    ]
    assert all(item["bytes"] > 0 for item in found["deleted"])
    assert any("privacy_unlearn_train.jsonl" in sentence for sentence in found["left"])
    assert main(["purge", str(folder), "--yes"]) == 0
    assert "nothing is left to delete" in capsys.readouterr().out
