"""``grail report`` reads files alone: it trains nothing and says what is missing."""

import json
import shutil

import pytest

from grail.cli.main import main
from grail.files import write_json


def refused(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main(["report", str(folder)]) == 2
    assert sorted(folder.rglob("*")) == before
    return capsys.readouterr().err


def test_a_run_is_reported_from_its_folder_or_its_file(finished, tmp_path, capsys):
    config, folder = finished(), tmp_path / "run"
    for given in (folder, config):
        (folder / "report.html").unlink()
        assert main(["report", str(given)]) == 0
        shown = capsys.readouterr()
        assert shown.out.endswith(f"report: {folder / 'report.html'}\n")
        assert not shown.err
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] in ("fail", "undecided")


@pytest.mark.parametrize("name", ["localization.json", "results.json"])
def test_an_unfinished_run_is_refused_with_what_is_missing(name, finished, tmp_path, capsys):
    finished()
    folder = tmp_path / "run"
    (folder / name).unlink()
    told = refused(folder, capsys)
    assert f"it has no {name}" in told
    assert f"grail run {folder}" in told


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "not a finished run: it has no config.yaml" in refused(tmp_path, capsys)
    assert main(["report", str(tmp_path / "none")]) == 2


def test_a_comparison_is_reported_and_an_unfinished_one_refused(tmp_path, capsys):
    folder = tmp_path / "out"
    (folder / ".comparison").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    assert "grail compare FILE.yaml" in refused(folder, capsys)
    number = {"mean": 80.0, "sd": None}
    part = {"a.US": number, "a.RS": number, "Avg": number, "HS": number}
    method = {"method": "m", "of": "m", "varied": {}, "chosen": {}, "seeds": [0], "n_seeds": 1}
    method |= {"failed": 0, "minutes": None, "peak_bytes": None, "train": part, "val": {}}
    found = {"title": "T", "settings": {"domains": {"a": {}}}, "choose": {}, "figures": []}
    found |= {"reference": [], "columns": ["US", "RS"], "vanilla": {"train": part}, "grid": []}
    found |= {"cells": [], "methods": [method], "differences": [], "best": []}
    write_json(folder / "comparison.json", found)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(f"comparison: {folder / 'comparison.html'}\n")
    assert main(["report", str(folder), "--strict"]) == 2  # no verdict is no pass
    assert "--strict: " in capsys.readouterr().err
    assert "Forgetting against keeping" in (folder / "comparison.html").read_text()
    shutil.rmtree(folder / ".comparison")
    assert "not a finished run" in refused(folder, capsys)
