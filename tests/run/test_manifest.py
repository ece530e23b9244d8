"""The manifest of a run directory: what is recorded, what is seen, what was purged."""

import hashlib
import json
from datetime import datetime, timezone

import pytest

from grail.errors import InputError
from grail.files import read_json, write_json
from grail.run import manifest


@pytest.fixture
def folder(tmp_path):
    """A run directory with three files that belong to a run, and three that do not."""
    for name in ("config.yaml", "vanilla/a.bin", "train.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in (".lock", "notes.txt", "vanilla/a.bin.partial"):
        (tmp_path / name).touch()
    manifest.record(tmp_path)
    return tmp_path


def content(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_file_is_recorded_with_the_digest_that_sha256sum_prints(folder):
    files = content(folder)["files"]
    assert list(files) == ["config.yaml", "train.jsonl", "vanilla/a.bin"]
    assert files["vanilla/a.bin"] == {
        "sha256": hashlib.sha256(b"vanilla/a.bin").hexdigest(),
        "bytes": 13,
    }
    assert manifest.problems(folder) == []
    assert manifest.changed(folder) == []


def test_recording_again_never_covers_up_a_change(folder):
    (folder / "vanilla/a.bin").write_text("vanilla/b.bin")
    manifest.record(folder)
    assert manifest.changed(folder) == [folder / "vanilla/a.bin"]
    assert manifest.changed(folder, "vanilla")
    assert not manifest.changed(folder, "train.jsonl")
    (problem,) = manifest.problems(folder)
    assert problem.startswith("vanilla/a.bin was changed: SHA-256 ")
    with pytest.raises(InputError, match=r"vanilla/a.bin is not as grail wrote it"):
        manifest.require(folder, "vanilla")
    manifest.require(folder, "config.yaml", "train.jsonl")


def test_what_is_dropped_is_recorded_anew(folder):
    (folder / "train.jsonl").write_text("other")
    manifest.drop(folder, "train.jsonl")
    assert "train.jsonl" not in content(folder)["files"]
    manifest.record(folder)
    assert manifest.problems(folder) == []


def test_missing_and_new_files_are_named_and_a_record_of_some_leaves_the_others(folder):
    (folder / "train.jsonl").unlink()
    (folder / "vanilla/more.bin").touch()
    manifest.record(folder, "config.yaml")
    texts = ["train.jsonl is missing.", "vanilla/more.bin is new: no stage recorded it."]
    assert manifest.problems(folder) == texts
    assert manifest.changed(folder) == manifest.missing(folder) == [folder / "train.jsonl"]
    manifest.require(folder)  # a reader says itself what it lacks
    manifest.record(folder)
    assert manifest.problems(folder) == []


def test_what_was_purged_is_no_problem_unless_it_is_back(folder):
    (folder / "vanilla/late.bin").write_text("x")  # has no entry yet
    manifest.record_purged(folder, ["vanilla", folder / "train.jsonl"])
    for name in ("vanilla/a.bin", "vanilla/late.bin", "train.jsonl"):
        (folder / name).unlink()
    today = datetime.now(timezone.utc).date().isoformat()
    names = ["train.jsonl", "vanilla/a.bin", "vanilla/late.bin"]
    assert manifest.purged(folder) == dict.fromkeys(names, today)
    assert manifest.problems(folder) == []
    (folder / "train.jsonl").touch()
    (problem,) = manifest.problems(folder)
    assert problem.startswith(f"train.jsonl is back, but was purged on {today}")
    manifest.record(folder)  # a stage made it again
    assert list(manifest.purged(folder)) == names[1:]


def test_a_damaged_manifest_is_named_and_made_again(folder):
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"bytes": 13', '"bytes": 14'))
    (problem,) = manifest.problems(folder)
    assert "manifest.json is not as grail wrote it" in problem
    with pytest.raises(InputError, match=r"manifest.json"):
        manifest.require(folder)
    heard = []
    manifest.renew(folder, heard.append)
    manifest.renew(folder, heard.append)
    assert len(heard) == 1
    assert "made again" in heard[0]
    assert not file.exists()


def test_without_a_manifest_nothing_is_refused_but_nothing_is_vouched_for(tmp_path):
    (tmp_path / "config.yaml").touch()
    manifest.require(tmp_path)
    manifest.drop(tmp_path, "config.yaml")
    assert not (tmp_path / "manifest.json").exists()
    assert manifest.problems(tmp_path) == [
        "manifest.json is missing: nothing tells which files grail wrote."
    ]


def test_a_changed_file_is_discarded_with_a_word(folder):
    (folder / "train.jsonl").write_text("other")
    heard = []
    manifest.discard(folder, heard.append, "train.jsonl", "config.yaml")
    assert len(heard) == 1
    assert "train.jsonl is not as grail wrote it" in heard[0]
    assert not (folder / "train.jsonl").exists()
    assert (folder / "config.yaml").exists()


def test_settings_of_a_run_directory_are_refused_when_they_were_edited(folder, tmp_path):
    (folder / "config.yaml").write_text("seed: 1")
    for source in (folder, folder / "config.yaml"):
        with pytest.raises(InputError, match=r"config.yaml is not as grail wrote it"):
            manifest.require_settings(source)
    manifest.require_settings(folder / "other.yaml")
    manifest.require_settings(None)


def test_only_paths_inside_can_be_purged(folder):
    with pytest.raises(ValueError, match="not in the subpath"):
        manifest.record_purged(folder, [folder.parent / "other"])


@pytest.mark.parametrize(
    "files",
    [[], 3, {"a": "text"}, {"a": {"bytes": 1}}, {"a": {"sha256": 1, "bytes": 1}}, {"a": {}}],
)
def test_a_manifest_of_another_shape_is_named(folder, files):
    file = folder / manifest.MANIFEST
    write_json(file, read_json(file) | {"files": files})  # with a right digest of itself
    with pytest.raises(InputError, match="manifest"):
        manifest.entries(folder)
    assert len(manifest.problems(folder)) == 1
