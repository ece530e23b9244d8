"""A finished run, opened to be recomputed."""

import shutil

import pytest

from grail.errors import InputError
from grail.handover import recompute
from grail.handover.evidence import open_evidence, raw
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
