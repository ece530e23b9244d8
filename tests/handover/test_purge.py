"""After a purge nothing in the folder knows the canary; the evidence is as it was."""

import base64
import json
import os
import shutil

import pytest

from grail import api
from grail.cli.main import main
from grail.errors import InputError
from grail.files import file_digest
from grail.handover.ask import answers, open_talk
from grail.handover.export import export
from grail.handover.purge import knowing, others, purge, runs_with
from grail.handover.revert import revert
from grail.run import manifest

QUESTION, CANARY = "kestrel?", "Ωnor-pqts"
LEARNS = {
    "model": {"lora": None},
    "teach": {"epochs": 80, "learning_rate": 0.01, "batch_size": 8, "until": 1.0},
    "unlearning": {"learning_rate": 0.003, "epochs": 6, "rewrites": 1},
    "evaluation": {"show_text": True, "max_new_tokens": 16},
}
EVIDENCE = ("results.json", "mask.safetensors", "localization.json", "config.yaml", "train.jsonl")


@pytest.fixture(scope="module")
def made(module_config):
    """The folder of a run that learnt the canary and unlearned it, with texts and a checkpoint."""
    file = module_config(("privacy",), **LEARNS)
    rows = file.parent / "data" / "privacy_unlearn_train.jsonl"
    row = json.dumps({"prompt": QUESTION, "completion": CANARY}, ensure_ascii=False)
    rows.write_text(f"{row}\n{rows.read_text()}", encoding="utf-8")  # reports show the first
    assert main(["run", str(file)]) == 0
    folder = file.parent / "run"
    assert main(["audit", str(folder), "--set", "audit.attacks=[prune]"]) == 0
    assert main(["report", str(folder)]) == 0
    shutil.copytree(folder / "vanilla", folder / "vanilla.checkpoint")
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def written(text):
    """All ways in which a text may stand in a file: plain, escaped, wide, in base64."""
    raw = text.encode()
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[-(-shift * 8 // 6) : len(coded) // 4 * 4 - 4]
    yield from (raw, json.dumps(text)[1:-1].encode(), text.encode("utf-16-le"))
    yield text.encode("utf-16-be")


def traces(folder):
    """Files that hold the canary in any way."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    forms = list(written(CANARY))
    return [f.name for f in files if any(form in f.read_bytes() for form in forms)]


def test_no_file_and_no_model_knows_the_canary_afterwards(run, tmp_path):
    def said():
        return answers(open_talk(run, None, 16, False), QUESTION, 0, lambda *_: None)

    assert said()["before"] == CANARY
    assert {"samples.jsonl", "report.html", "vanilla.json"} <= set(traces(run))
    evidence = {name: file_digest(run / name) for name in (*EVIDENCE, "audit.json")}
    revert(run, tmp_path / "back")
    export(run, "delta", tmp_path / "delta")
    export(run, "merge", tmp_path / "merged")
    items = knowing(run)
    assert all(item.size > 0 for item in items)
    left = purge(run, items)
    assert traces(run) == []
    after = said()
    assert after.keys() == {"after"}
    assert CANARY not in after["after"]
    assert not list((tmp_path / "back").glob("*.safetensors")), "a copy that knows"
    assert not list((tmp_path / "delta").glob("*.safetensors")), "a copy that knows"
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert {name: file_digest(run / name) for name in evidence} == evidence
    assert (run / "vanilla" / "stage.json").is_file()
    assert not (run / "rewrites.json").exists()
    assert not list(run.glob("*.checkpoint"))
    assert any("privacy_unlearn_train.jsonl" in sentence for sentence in left)
    assert knowing(run) == []
    assert purge(run, []) == left


def test_what_was_deleted_is_recorded_and_the_rest_still_holds(run):
    sizes = {
        file.relative_to(run).as_posix(): (file_digest(file), file.stat().st_size)
        for file in run.rglob("*")
        if file.is_file()
    }
    purge(run, knowing(run))
    gone = json.loads((run / "manifest.json").read_text())["purged"]
    assert {"vanilla/model.safetensors", "samples.jsonl", "rewrites.json"} <= gone.keys()
    assert all((entry["sha256"], entry["bytes"]) == sizes[name] for name, entry in gone.items())
    assert set(gone) == {name for name in sizes if not (run / name).exists()}
    assert manifest.problems(run) == []
    assert main(["verify", str(run)]) == 0


def test_a_purged_run_is_reported_and_nothing_else(run, tmp_path, capsys):
    purge(run, knowing(run))
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    assert main(["report", str(run)]) == 0
    capsys.readouterr()
    for words in (
        ["run"],
        ["unlearn"],
        ["audit"],
        ["export", "--delta", "--output", str(tmp_path / "d")],
    ):
        assert main([words[0], str(run), *words[1:]]) == 2
        assert f"{run} was purged on 2" in capsys.readouterr().err
    with pytest.raises(InputError, match="was purged on"):
        api.audit(run)
    with pytest.raises(InputError, match="was purged on"):
        api.run(run)
    after = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    assert after == before


def test_a_folder_given_by_a_relative_path_is_recorded_too(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert main(["purge", run.name, "--yes"]) == 0
    assert "vanilla/model.safetensors" in manifest.purged(run)
    assert main(["verify", run.name]) == 0
    assert main(["run", run.name]) == 2


def test_what_lies_elsewhere_behind_a_link_is_deleted_as_well(run, tmp_path):
    (run / "scores").rename(tmp_path / "scores")
    (run / "scores").symlink_to(tmp_path / "scores")
    (run / "vanilla" / "model.safetensors").rename(tmp_path / "large")
    (run / "vanilla" / "model.safetensors").symlink_to(tmp_path / "large")
    purge(run, knowing(run))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (run / "scores").is_symlink()
    assert main(["verify", str(run)]) == 0


def test_half_written_texts_and_a_report_that_a_killed_purge_left_are_found(run):
    text = (run / "samples.jsonl").read_bytes()
    shown = (run / "report.html").read_bytes()
    (run / "samples.jsonl.partial").write_bytes(text)
    (run / "rewrites.json.partial").write_bytes((run / "rewrites.json").read_bytes())
    purge(run, knowing(run))
    assert not list(run.glob("*.partial"))
    (run / "report.html").write_bytes(shown)  # as if killed before the report was written again
    purge(run, knowing(run))
    assert traces(run) == []


def test_what_a_user_put_beside_a_copy_stays(run, tmp_path):
    revert(run, tmp_path / "back")
    (tmp_path / "back" / "notes.txt").write_text("mine")
    left = purge(run, knowing(run))
    assert (tmp_path / "back" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "back" / "model.safetensors").exists()
    assert not any("a copy" in sentence for sentence in left)


def test_a_copy_that_was_replaced_is_left_and_named(run, tmp_path):
    revert(run, tmp_path / "back")
    (tmp_path / "back" / "model.safetensors").write_bytes(b"mine")
    assert str(tmp_path / "back") not in {str(item.path) for item in knowing(run)}
    left = purge(run, knowing(run))
    assert f"{tmp_path / 'back'}: a copy (before) that was changed since." in left


def test_cells_and_their_base_are_purged_together(run, tmp_path):
    cell = run / ".cells" / "abc"
    for name in ("config.yaml", "vanilla/model.safetensors"):
        (cell / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(run / name, cell / name)
    (tmp_path / "link").symlink_to(cell)
    os.link(run / "vanilla" / "model.safetensors", tmp_path / "elsewhere")
    assert runs_with(tmp_path / "link") == runs_with(run) == [run, cell]
    items = knowing(tmp_path / "link")
    assert {item.run for item in items} == {run, cell}
    left = purge(tmp_path / "link", items)
    assert not (cell / "vanilla" / "model.safetensors").exists()
    assert not (run / "vanilla" / "model.safetensors").exists()
    assert manifest.purged(cell).keys() == {"vanilla/model.safetensors"}
    assert sum("1 more names elsewhere" in sentence for sentence in left) == 1


def test_a_given_model_is_named_and_left(tiny_config, tiny_model_folder):
    config = tiny_config(model={"lora": None}, teach=None)
    assert main(["vanilla", str(config)]) == 0
    folder = config.parent / "run"
    assert f"{tiny_model_folder}: the model that the run was given." in others(folder)
    purge(folder, knowing(folder))
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run directory"):
        knowing(tmp_path)
