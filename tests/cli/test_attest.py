"""``grail attest`` and ``grail verify``: what they print, and their exit codes."""

import json
import shutil

import pytest

from grail.cli.main import main


@pytest.fixture
def folder(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_a_run_is_attested_and_verified(folder, capsys):
    assert main(["attest", str(folder), "--request", "R-1"]) == 0
    said = capsys.readouterr().out
    assert f"attestation: {folder / 'attestation.html'}" in said
    assert main(["attest", str(folder), "--request", "R-1", "--strict"]) == 3
    assert "grail: --strict: " in capsys.readouterr().err
    assert main(["verify", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "verified: nothing was changed (25 files against manifest.json" in said
    absent = "general tasks, audit from its figures, audit from measurements"
    assert f"nothing to check: {absent}." in said
    assert absent not in said.partition("verified")[2]


def test_a_changed_run_is_named_and_not_attested(folder, capsys):
    with (folder / "train.jsonl").open("a") as file:
        file.write(" ")
    assert main(["verify", str(folder)]) == 4
    assert "CHANGED: train.jsonl was changed: SHA-256 " in capsys.readouterr().out
    assert main(["verify", str(folder), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["changes"][0].startswith("train.jsonl was changed")
    assert main(["attest", str(folder), "--request", "R-1"]) == 2
    assert "cannot be attested" in capsys.readouterr().err
    assert not (folder / "attestation.json").exists()


def test_a_wrong_id_is_refused_before_any_work(tmp_path, capsys):
    assert main(["attest", str(tmp_path), "--request", " "]) == 2
    assert "--request: give an id" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none")]) == 2
    for folder in (tmp_path, tmp_path / "none"):
        capsys.readouterr()
        assert main(["attest", str(folder), "--request", "R"]) == 2
        assert f"error: {folder} is not a run directory." in capsys.readouterr().err


def test_the_summary_of_an_attestation_is_one_document(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["attest", str(folder), "--request", "R", "--output", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["output"] == str(out / "attestation.json")
    assert said["outcome"] in ("fail", "undecided")
    assert main(["verify", str(out / "attestation.json")]) == 0
