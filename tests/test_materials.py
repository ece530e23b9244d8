import os
from pathlib import Path

import pytest
import torch

from grail.config import parse
from grail.materials import Materials
from grail.preparation import prepare


class Heard:
    def __init__(self):
        self.warnings = []

    def stage(self, name):
        raise AssertionError("materials enter no stage")

    def skipped(self, name):
        raise AssertionError("materials skip no stage")

    def warn(self, text):
        self.warnings.append(text)


def settings(folder: Path, model: Path, **data: object) -> dict[str, object]:
    for side in ("u", "r"):
        text = "".join(
            f'{{"prompt":"{side}{i}?","completion":"{side * 9} {i}"}}\n' for i in range(3)
        )
        (folder / f"{side}.jsonl").write_text(text, encoding="utf-8")
    return {
        "model": {"name": str(model)},
        "domains": {
            "d": {
                "unlearn": {"train": str(folder / "u.jsonl")},
                "retain": {"train": str(folder / "r.jsonl")},
            }
        },
        "data": {"template": "plain", **data},
        "general": {"train": None},
        "output": str(folder / "run"),
    }


@pytest.fixture
def make(tmp_path, tiny_model_folder):
    def made(**changes: object) -> Materials:
        data = changes.pop("data", {})
        config = parse({**settings(tmp_path, tiny_model_folder, **data), **changes})
        return Materials(config, prepare(config), Heard(), torch.device("cpu"))

    return made


def test_key_depends_on_the_sections_named_and_on_nothing_else(make):
    base = make()
    other = make(unlearning={"epochs": 3})
    assert base.key("model", "importance") == other.key("model", "importance")
    assert base.key("unlearning") != other.key("unlearning")
    assert base.key("seed") != base.key("seed", rows="x")


def test_key_ignores_how_often_is_saved(make):
    assert make().key("unlearning") == make(unlearning={"checkpoint_steps": 1}).key("unlearning")


def test_key_changes_with_the_files_of_the_model(make, tiny_model_folder):
    before = make().key("model")
    file = Path(tiny_model_folder) / "config.json"
    stat = file.stat()
    try:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        assert make().key("model") != before
    finally:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert make().key("model") == before


def test_sides_hold_the_train_rows_and_data_their_digests(make):
    materials = make()
    assert {side: len(rows) for side, rows in materials.sides().items()} == {
        ("d", "unlearn"): 3,
        ("d", "retain"): 3,
    }
    assert set(materials.data("train")) == {"d.unlearn.train", "d.retain.train"}
    assert materials.data("val", "general") == {}


def test_cut_completions_are_told_once(make):
    materials = make(data={"max_tokens": 10})
    assert materials.rows == materials.rows
    assert len(materials.listener.warnings) == 1
    assert "data.max_tokens" in materials.listener.warnings[0]
