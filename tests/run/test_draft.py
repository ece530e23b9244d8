"""A drafted settings file is what validate accepts, and nothing is written before it would be."""

import json
import os

import pytest

from grail.config.file import load_config
from grail.config.presets import REQUEST
from grail.errors import InputError
from grail.run.draft import GENERAL_FILE, draft, write_draft
from grail.run.inputs import read_inputs

LOSE = "Frage;Antwort\nWhere does she live?;At 3 Mill Lane.\nWhen was she born?;In May.\n"
KEEP = "Question\tAnswer\nWhat does she do?\tShe builds bridges.\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "lose.csv").write_text(LOSE)
    (tmp_path / "keep.tsv").write_text(KEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_files_and_a_model_become_settings(files, tiny_model_folder):
    output = files / "erase.yaml"
    made = draft(output, str(tiny_model_folder), "lose.csv", "keep.tsv", {})
    assert not output.exists()
    assert "lose.csv: 2 rows, 2 columns" in made.said
    assert "keep.tsv: 1 row, 2 columns" in made.said
    assert "the prompt of a row is its column 'Frage'" in made.said
    write_draft(output, made)
    config = load_config(output)
    assert (config.teach, config.preset, config.model.lora) == (None, REQUEST, None)
    rows = {str(s.place): s.completion for s in read_inputs(config).samples}
    assert rows == {
        "request.unlearn.train": "In May.",
        "request.retain.train": "She builds bridges.",
    }
    with pytest.raises(InputError, match="exists already"):
        draft(output, str(tiny_model_folder), "lose.csv", "keep.tsv", {})


def test_without_rows_to_keep_general_questions_stand_in(files, tiny_model_folder):
    output = files / "deep" / "erase.yaml"
    made = draft(output, str(tiny_model_folder), "lose.csv", None, {})
    assert not output.parent.exists()
    write_draft(output, made)
    config = load_config(output)
    inputs = read_inputs(config)
    kept = [s for s in inputs.samples if s.side == "retain"]
    assert len(kept) == len((output.parent / GENERAL_FILE).read_text().splitlines()) > 20
    held_out = {s.prompt for s in inputs.general if s.part == "val"}
    assert held_out.isdisjoint({s.prompt for s in kept})


def test_an_adapter_is_gone_on_with(files, finished_run):
    made = draft(files / "a.yaml", str(finished_run / "vanilla"), "lose.csv", "keep.tsv", {})
    write_draft(files / "a.yaml", made)
    assert load_config(files / "a.yaml").model.lora is not None


@pytest.mark.parametrize(
    ("model", "unlearn", "columns", "words"),
    [
        ("./no-model", "lose.csv", {}, "no-model does not exist"),
        (None, "none.csv", {}, "none.csv does not exist"),
        (None, "lose.csv", {"prompt": "Q", "completion": "Antwort"}, "no 'Q'"),
        (None, "keep.tsv", {}, "cannot be unlearned and stay"),
    ],
)
def test_nothing_is_written_for_what_validate_would_refuse(
    files, tiny_model_folder, model, unlearn, columns, words
):
    before = sorted(os.listdir(files))
    name = model or str(tiny_model_folder)
    with pytest.raises(InputError, match=words):
        draft(files / "a.yaml", name, unlearn, "keep.tsv", columns)
    assert sorted(os.listdir(files)) == before


def test_a_table_without_a_header_is_refused(files, tiny_model_folder):
    """Else its first row would be the header: it would not be unlearned, and stand in the YAML."""
    (files / "bare.csv").write_text("Where does she live?,At 3 Mill Lane.\nWho?,She.\n")
    with pytest.raises(InputError, match="must be a header") as error:
        draft(files / "a.yaml", str(tiny_model_folder), "bare.csv", "keep.tsv", {})
    assert "Mill" not in str(error.value)


@pytest.mark.parametrize("name", ["""it's "q".jsonl""", "no#1.jsonl"])
def test_names_with_signs_and_folders_elsewhere_are_found_again(name, files, tiny_model_folder):
    (files / "sub").mkdir()
    row = {"prompt": "Who?", "completion": "Nobody."}
    (files / name).write_text(json.dumps(row) + "\n")
    output = files / "sub" / "a.yaml"
    write_draft(output, draft(output, str(tiny_model_folder), name, "keep.tsv", {}))
    assert load_config(output).domains["request"].unlearn.train == str(files / name)
