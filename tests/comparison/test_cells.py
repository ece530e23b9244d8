"""The store of cells: digests, what cells share, when they are finished, links to them."""

import os
import shutil
from pathlib import Path

import pytest

from grail.cli.main import main
from grail.comparison import cells
from grail.comparison.cells import Store, link_cell, lost
from grail.comparison.processes import ProcessResult
from grail.comparison.rows import uncalibrated
from grail.config.file import load_config
from grail.config.run import Config
from grail.errors import InputError
from grail.files import read_json, write_json
from grail.run import lock, manifest

RESULT = ProcessResult(0, 1.0, 5)


def changed(config: Config, section: str, **more) -> Config:
    values = config.model_dump()
    values[section] |= more
    return Config.model_validate(values)


@pytest.fixture
def config(tiny_config):
    return load_config(tiny_config(), [])


def test_the_digest_changes_with_settings_and_data_and_not_with_places(config, tmp_path):
    first = cells.config_digest(config)
    assert cells.config_digest(config.model_copy(update={"output": "elsewhere"})) == first
    assert cells.config_digest(config.model_copy(update={"made_with": {}})) == first
    assert cells.config_digest(config.model_copy(update={"preset": "grail"})) == first
    assert cells.config_digest(changed(config, "audit", attacks=[])) == first
    assert cells.config_digest(config.model_copy(update={"seed": 1})) != first
    assert cells.config_digest(changed(config, "localization", k_op_ur=0.2)) != first
    moved = tmp_path / "moved.jsonl"
    Path(config.general.train).rename(moved)
    assert cells.config_digest(changed(config, "general", train=str(moved))) == first
    asked = changed(config, "evaluation", general_tasks=["mmlu", str(moved)])
    assert cells.config_digest(asked) != cells.config_digest(config)
    copied = tmp_path / "copied.jsonl"
    copied.write_bytes(moved.read_bytes())
    other = changed(config, "evaluation", general_tasks=["mmlu", str(copied)])
    assert cells.config_digest(other) == cells.config_digest(asked)
    file = Path(config.domains["privacy"].retain.val)
    file.write_text(file.read_text() + '{"prompt": "a", "completion": "b"}\n')
    assert cells.config_digest(changed(config, "general", train=str(moved))) != first


def test_held_out_rows_part_no_cell_from_the_vanilla_model(config):
    def given(key, side="unlearn"):
        values = config.model_dump()
        values["domains"]["privacy"][side][key] = config.general.train
        return Config.model_validate(values)

    assert cells.shares_vanilla(given("heldout"), config)
    assert cells.config_digest(given("heldout")) != cells.config_digest(config)
    for side in ("unlearn", "retain"):
        assert not cells.shares_vanilla(given("val", side), config)


def test_overrides_are_what_differs(config):
    other = changed(config, "unlearning", learning_rate=0.5, until=None)
    other = changed(other, "model", lora=None)
    assert cells.overrides(config, config) == {}
    assert cells.overrides(other, config) == {"model.lora": None, "unlearning.learning_rate": 0.5}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A folder for the base of ``based``, which is made once."""
    return tmp_path_factory.mktemp("bases")


@pytest.fixture
def based(plan, bases, copied_run, tmp_path):
    """The store of a plan of three methods whose base is made, and their settings."""
    found = plan(
        {
            "same": {},
            "scored": {"set": {"importance": {"trials": 1}}},
            "other": {"set": {"teach": {"epochs": 2}}},
        }
    )
    if (bases / "out").exists():
        copied_run(bases / "out", bases, tmp_path)
    else:
        (found.output / ".comparison").mkdir(parents=True)
        file = found.output / ".comparison" / "base.yaml"
        cells.config_file.write(file, found.base, {})
        assert main(["evaluate", str(file), "--vanilla-only"]) == 0
        copied_run(found.output, tmp_path, bases)
    return Store(found.base), {row.name: found.cells(row, {})[0].config for row in found.rows}


def inodes(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_ino
        for name in ("vanilla", "scores", "evaluation")
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def shared(folder, base):
    """Files of the base that the cell has too, as the same file."""
    own, theirs = inodes(folder), inodes(base)
    return sorted(name for name in own.keys() & theirs.keys() if own[name] == theirs[name])


def end(store, config, text="{}"):
    """Play the end of a cell's run."""
    for name in ("results.json", "samples.jsonl"):
        (store.folder(config) / name).unlink(missing_ok=True)  # replaced, as a run does
        (store.folder(config) / name).write_text(text)
    store.finish(config, RESULT, resumed=False)


def test_a_cell_links_what_it_has_in_common_with_the_base(based):
    store, configs = based
    base = Path(store.base.output)
    assert (base / "evaluation" / "vanilla.json").exists()
    (base / "evaluation" / "general.vanilla.json").write_text("{}")  # where general tasks are asked
    for config in configs.values():
        store.prepare(config)
    everything = sorted(inodes(base))
    folders = {name: store.folder(config) for name, config in configs.items()}
    assert shared(folders["same"], base) == everything
    without = [name for name in everything if not name.startswith("scores/")]
    assert shared(folders["scored"], base) == without
    assert shared(folders["other"], base) == []


def test_a_prepared_cell_trains_and_scores_nothing_again(based, capsys):
    store, configs = based
    base = Path(store.base.output)
    job = store.prepare(configs["same"])
    before = inodes(base)
    capsys.readouterr()
    assert main(job.words) == 0
    said = capsys.readouterr().err
    for stage in ("vanilla", "score privacy.unlearn", "score copyright.retain", "evaluate vanilla"):
        assert f"kept {stage} (finished before" in said
    assert inodes(base) == before
    job = store.prepare(configs["scored"])
    capsys.readouterr()
    assert main(job.words) == 0
    said = capsys.readouterr().err
    assert "kept vanilla" in said
    assert "score privacy.unlearn: started" in said
    assert inodes(base) == before


def test_a_link_to_a_cell_is_a_run_directory(based, tmp_path, capsys):
    store, configs = based
    home, link = store.folder(configs["same"]), tmp_path / "out" / "same" / "0"
    link_cell(link, home)
    assert main(store.prepare(configs["same"]).words) == 0
    before = (home / "results.json").read_bytes()
    capsys.readouterr()
    for command in ("report", "run"):
        assert main([command, str(link)]) == 0
    assert "kept unlearn (finished before" in capsys.readouterr().err
    assert link.is_symlink()
    assert (home / "results.json").read_bytes() == before
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert (tmp_path / "moved/same/0/results.json").read_bytes() == before


def test_what_is_missing_is_linked_and_what_is_there_stays(based):
    store, configs = based
    store.prepare(configs["same"])
    folder = store.folder(configs["same"])
    complete = inodes(folder)
    (folder / "vanilla" / "stage.json").unlink()  # as if killed between two links
    score = folder / "scores" / "privacy.retain.safetensors"
    score.unlink()
    score.write_bytes(b"its own")
    store.prepare(configs["same"])
    assert score.read_bytes() == b"its own"
    own = inodes(folder)
    assert {name for name in complete if own[name] != complete[name]} == {
        "scores/privacy.retain.safetensors"
    }


def test_copies_where_the_file_system_has_no_links(based, monkeypatch, tmp_path):
    store, configs = based

    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    store.prepare(configs["same"])
    base, folder = Path(store.base.output), store.folder(configs["same"])
    assert shared(folder, base) == []
    assert inodes(folder).keys() == inodes(base).keys()
    link = tmp_path / "elsewhere" / "0"
    for text in ("{}", '{"a": 1}'):
        end(store, configs["same"], text)
        link_cell(link, folder)
        assert not link.is_symlink()
        assert (link / "results.json").read_text() == text
        assert inodes(link).keys() == inodes(folder).keys()


def test_finished_is_results_of_these_settings_and_this_vanilla_model(based):
    store, configs = based
    config = configs["same"]
    store.prepare(config)
    assert not store.is_finished(config)
    end(store, config)
    assert store.is_finished(config)
    assert not store.is_finished(configs["scored"])
    folder = store.folder(config)
    (folder / "samples.jsonl").unlink()
    assert not store.is_finished(config)
    end(store, config)
    (folder / "results.json").write_text('{"made": "by hand since"}')
    assert not store.is_finished(config)
    end(store, config)
    (folder / cells.RECORD).write_text('{"cell": ')
    assert not store.is_finished(config)
    end(store, config)
    stamp = Path(store.base.output) / "vanilla" / "stage.json"
    values = read_json(stamp)
    write_json(stamp, values | {"weights": "other"})
    assert not Store(store.base).is_finished(config)
    write_json(stamp, values)
    assert Store(store.base).is_finished(config)  # found again


def test_a_calibrated_cell_starts_from_the_one_without(based):
    store, configs = based
    config = changed(configs["same"], "evaluation", retain_target=50)
    start = uncalibrated(config)
    assert store.folder(start) != store.folder(config)
    store.prepare(start)
    (store.folder(start) / "unlearned").mkdir()
    (store.folder(start) / "unlearned" / "stage.json").write_text("{}")
    store.prepare(config)
    assert not (store.folder(config) / "unlearned").exists()  # not before it is finished
    end(store, start)
    store.prepare(config)
    made, source = (store.folder(c) / "unlearned/stage.json" for c in (config, start))
    assert made.samefile(source)
    assert not (store.folder(config) / ".lock").samefile(store.folder(start) / ".lock")
    assert not store.is_finished(config)
    for seconds in (2.0, 1.0):  # run again, it starts from itself
        end(store, config)
        assert store.is_finished(config)
        assert cells.record_of(store.folder(config) / cells.RECORD)["seconds"] == seconds
    assert store.is_finished(start)


def test_a_cell_at_which_another_is_at_work_is_left_alone(based):
    store, configs = based
    with (
        lock.alone(store.folder(configs["same"])),
        pytest.raises(InputError, match="another grail is at work"),
    ):
        store.prepare(configs["same"])
    store.prepare(configs["same"])


def test_what_is_no_link_is_not_replaced(tmp_path):
    place = tmp_path / "method" / "0"
    place.mkdir(parents=True)
    (place / "results.json").write_text("of an earlier version")
    with pytest.raises(InputError, match=r"method/0 is not a link to a cell"):
        link_cell(place, tmp_path / ".cells" / "a")
    assert (place / "results.json").read_text() == "of an earlier version"


def test_the_record_of_a_base_changes_with_each_thing_that_is_shared(based):
    store, _ = based
    base, folder = store.base, Path(store.base.output)
    record = cells.base_record(base)
    assert record == cells.base_record(base)
    assert {"vanilla", "privacy.retain.safetensors", "evaluation"} <= record["inputs"].keys()
    for name in ("scores/privacy.retain.safetensors", "vanilla/stage.json", "config.yaml"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        assert cells.base_record(base) != record
        (folder / name).write_bytes(content)
    assert cells.base_record(base) == record
    assert cells.base_record(changed(base, "unlearning", epochs=9)) != record


def test_a_lost_audit_is_no_loss_of_the_run(tmp_path):
    for name in ("results.json", "audit.json"):
        (tmp_path / name).write_text("{}")
    manifest.record(tmp_path)
    manifest.record(tmp_path, *manifest.AUDIT)
    for name in ("results.json", "audit.json"):
        (tmp_path / name).unlink()
    assert manifest.missing(tmp_path) == [tmp_path / "audit.json", tmp_path / "results.json"]
    assert lost(tmp_path) == [tmp_path / "results.json"]
