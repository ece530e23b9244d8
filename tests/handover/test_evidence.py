"""A finished run, opened to be recomputed."""

import shutil

import pytest

from grail.config.file import load_config
from grail.errors import InputError
from grail.handover import recompute
from grail.handover.evidence import data_files, is_here, open_evidence, raw
from grail.run import manifest


def test_a_finished_run_is_opened_with_its_rows(finished_run):
    run = open_evidence(finished_run)
    assert run.has_rows
    assert run.remarks == []
    assert run.context.inputs.digests == run.made_with["data"]
    weights = {name: run.weights(name) for name in manifest.MODELS}
    assert weights["vanilla"].keys() == weights["unlearned"].keys()
    assert any(bool((w != weights["unlearned"][n]).any()) for n, w in weights["vanilla"].items())


def test_without_the_rows_it_is_opened_with_a_remark(finished, tmp_path):
    finished()
    shutil.rmtree(tmp_path / "data")
    run = open_evidence(tmp_path / "run")
    assert not run.has_rows
    assert run.remarks[0].startswith("rows: not compared (")


def test_a_data_file_is_looked_for_without_what_is_picked_inside(tmp_path):
    for name in ("a.xlsx", "no#1.csv"):
        (tmp_path / name).touch()
    given = ("a.xlsx", "a.xlsx#Sheet", "no#1.csv", "b.xlsx", "b.xlsx#Sheet", "no#2.csv")
    found = [is_here(str(tmp_path / name)) for name in given]
    assert found == [True, True, True, False, False, False]


def test_what_is_only_measured_is_a_data_file_too_and_the_embedded_rows_are_none(tiny_config):
    rows = str(tiny_config().parent / "data" / "privacy_retain_val.jsonl")
    config = load_config(
        tiny_config(check={"others": {"rows": rows}}, general={"train": "embedded"})
    )
    assert rows in data_files(config)
    assert "embedded" not in data_files(config)


def test_what_a_check_lacks_is_remarked(finished, tmp_path):
    finished()
    manifest.record_purged(tmp_path / "run", ["vanilla"])
    shutil.rmtree(tmp_path / "run" / "vanilla")
    run = open_evidence(tmp_path / "run")
    assert not run.has_model("freezing", "vanilla")
    assert run.has_model("freezing", "unlearned")
    assert not run.lacks("results", ["results.json"])
    (remark,) = run.remarks
    assert remark.startswith("freezing: not recomputed, vanilla/adapter_config.json was purged on")


def test_an_unfinished_run_is_refused(finished, tmp_path):
    finished()
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        open_evidence(tmp_path / "run")
    with pytest.raises(InputError, match="is not a run directory"):
        open_evidence(tmp_path)


def test_raw_reads_whatever_the_digest_says(tmp_path):
    (tmp_path / "a.json").write_text('{"value": 1, "sha256": "none"}')
    assert raw(tmp_path / "a.json") == {"value": 1, "sha256": "none"}


def test_another_grail_may_have_made_the_run(finished_run):
    run = open_evidence(finished_run)
    assert run.same_software
    run.made_with["grail"] = "0.0.1"
    assert not run.same_software
    assert recompute.reported(run) == []
    assert run.remarks == ["report: not written again, another grail made the run."]
