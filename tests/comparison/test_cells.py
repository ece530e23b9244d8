"""What cells share and when they are finished: links, digests, records."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from grail.cli.main import main
from grail.comparison import cells
from grail.config.file import load_config
from grail.config.run import Config


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


@pytest.fixture
def based(plan):
    """A plan of four methods whose base is made."""
    found = plan(
        {
            "same": {},
            "scored": {"set": {"importance": {"trials": 1}}},
            "other": {"set": {"vanilla": {"epochs": 2}}},
        }
    )
    (found.output / ".comparison").mkdir(parents=True)
    file = found.output / ".comparison" / "base.yaml"
    cells.config_file.write(file, found.base, {})
    assert main(["evaluate", str(file), "--vanilla-only"]) == 0
    return found, {row.name: found.cells(row, {})[0] for row in found.rows}


def inodes(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_ino
        for name in ("vanilla", "scores", "evaluation")
        for path in (folder / name).rglob("*")
    }


def shared(folder, base):
    """Files of the base that the cell has too, as the same file."""
    own, theirs = inodes(folder), inodes(base)
    return sorted(name for name in own.keys() & theirs.keys() if own[name] == theirs[name])


def test_a_cell_links_what_it_has_in_common_with_the_base(based, capsys):
    plan, made = based
    base = plan.output
    assert (base / "evaluation" / "vanilla.json").exists()
    (base / "evaluation" / "general.vanilla.json").write_text("{}")  # where general tasks are asked
    for cell in made.values():
        cells.prepare_cell(cell, plan.base)
    everything = sorted(inodes(base))
    assert shared(made["same"].folder, base) == everything
    kept = [name for name in everything if not name.startswith("scores/")]
    assert shared(made["scored"].folder, base) == kept
    assert shared(made["other"].folder, base) == []


def test_a_prepared_cell_trains_and_scores_nothing_again(based, capsys):
    plan, made = based
    file = cells.prepare_cell(made["same"], plan.base)
    before = inodes(plan.output)
    capsys.readouterr()
    assert main(["run", str(file)]) == 0
    said = capsys.readouterr().err
    for stage in ("vanilla", "score privacy.unlearn", "score copyright.retain", "evaluate vanilla"):
        assert f"kept {stage} (finished before" in said
    assert inodes(plan.output) == before
    assert main(["report", str(made["same"].folder)]) == 0
    file = cells.prepare_cell(made["scored"], plan.base)
    capsys.readouterr()
    assert main(["run", str(file)]) == 0
    said = capsys.readouterr().err
    assert "kept vanilla" in said
    assert "score privacy.unlearn: started" in said
    assert inodes(plan.output) == before


def test_a_stale_link_is_replaced_and_a_good_one_left(based):
    plan, made = based
    cell = made["same"]
    cells.prepare_cell(cell, plan.base)
    once = inodes(cell.folder)
    cells.prepare_cell(cell, plan.base)
    assert inodes(cell.folder) == once
    stamp = cell.folder / "vanilla" / "stage.json"
    stamp.unlink()
    stamp.write_text('{"inputs": "older", "weights": "older"}')
    score = cell.folder / "scores" / "privacy.retain.safetensors"
    score.unlink()
    score.write_bytes(b"half")
    cells.prepare_cell(cell, plan.base)
    assert inodes(cell.folder) == once
    assert "older" not in (plan.output / "vanilla" / "stage.json").read_text()


def test_copies_where_the_file_system_has_no_links(based, monkeypatch):
    plan, made = based

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    cell = made["same"]
    cells.prepare_cell(cell, plan.base)
    assert shared(cell.folder, plan.output) == []
    assert inodes(cell.folder).keys() == inodes(plan.output).keys()
    once = inodes(cell.folder)
    cells.prepare_cell(cell, plan.base)
    assert inodes(cell.folder) == once


def test_finished_is_results_of_these_settings_and_this_vanilla_model(based):
    plan, made = based
    cell, stamp = made["same"], cells.vanilla_stamp(plan.base)
    cells.prepare_cell(cell, plan.base)
    (cell.folder / "results.json").write_text("{}")
    cells.write_record(cell, stamp, {"seconds": 1.0})
    assert not cells.is_finished(cell, stamp)
    (cell.folder / "samples.jsonl").write_text("{}")
    assert cells.is_finished(cell, stamp)
    (cell.folder / "results.json").write_text('{"made": "by hand since"}')
    assert not cells.is_finished(cell, stamp)
    (cell.folder / "results.json").write_text("{}")
    assert not cells.is_finished(cell, "another vanilla model")
    (cell.folder / cells.RECORD).write_text('{"config_digest": ')
    assert not cells.is_finished(cell, stamp)
    assert cells.read_record(cell.folder) == {}


def test_what_other_settings_have_left_is_dropped_before_a_cell_runs(based):
    """Else a run killed between its results and its record would pass for that of the record."""
    plan, made = based
    cell, stamp = made["same"], cells.vanilla_stamp(plan.base)
    cells.prepare_cell(cell, plan.base)
    for name in ("results.json", "samples.jsonl"):
        (cell.folder / name).write_text("{}")
    cells.write_record(cell, stamp, {})
    other = replace(cell, config=changed(cell.config, "unlearning", epochs=5))
    cells.prepare_cell(other, plan.base)
    for name in ("results.json", "samples.jsonl"):
        (cell.folder / name).write_text("{}")  # of the other settings, whose record is missing
    assert not cells.is_finished(other, stamp)
    assert not cells.is_finished(cell, stamp)


def test_begun_means_stage_3(based):
    plan, made = based
    cells.prepare_cell(made["same"], plan.base)
    assert not cells.was_begun(made["same"])
    (made["same"].folder / "train.jsonl.partial").touch()
    assert cells.was_begun(made["same"])


def test_adopting_takes_all_but_the_lock(based):
    plan, made = based
    source, cell = made["same"], made["scored"]
    cells.prepare_cell(source, plan.base)
    (source.folder / ".lock").touch()
    cells.adopt(source, cell)
    names = {path.relative_to(cell.folder).as_posix() for path in cell.folder.rglob("*")}
    assert ".lock" not in names
    assert "vanilla/stage.json" in names
    assert shared(cell.folder, source.folder) == sorted(inodes(source.folder))


def test_the_base_is_whole_or_not(based):
    plan, _ = based
    found = cells.base_inputs(plan.base)
    assert found is not None
    assert {"vanilla", "scores/privacy.retain.safetensors", "evaluation"} <= found.keys()
    (plan.output / "scores" / "privacy.retain.safetensors").unlink()
    assert cells.base_inputs(plan.base) is None
