"""What holds in a run directory, and what is dropped."""

import json

import pytest
import yaml

from grail.artifacts import STAMP
from grail.config import parse
from grail.directory import (
    RESULTS,
    check_weights,
    checkpoint_of,
    drop_checkpoint,
    drop_mask,
    has_mask,
    has_settings,
    keep_scores,
    outdate,
    stamp,
    weights_digest,
)
from grail.errors import InputError

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
CONFIG = parse({"domains": {"d": SIDES}, "output": "x"})


def test_the_same_settings_are_recognised(tmp_path):
    assert not has_settings(tmp_path, CONFIG, {})
    values = CONFIG.model_dump(mode="json", exclude={"made_with"}) | {"made_with": {"grail": "1"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert has_settings(tmp_path, CONFIG, {"grail": "1"})
    assert not has_settings(tmp_path, CONFIG, {"grail": "2"})
    assert not has_settings(tmp_path, CONFIG.model_copy(update={"seed": 1}), {"grail": "1"})
    for broken in ("[", "a: b", "", "\x00"):
        (tmp_path / "config.yaml").write_text(broken)
        assert not has_settings(tmp_path, CONFIG, {"grail": "1"})


def test_only_results_are_outdated(tmp_path):
    for name in (*RESULTS, "train.jsonl", "config.yaml"):
        (tmp_path / name).touch()
    outdate(tmp_path)
    outdate(tmp_path)  # nothing left to drop is no error
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "config.yaml"}


def test_scores_of_other_domains_go(tmp_path):
    (tmp_path / "scores").mkdir()
    for name in ("a.unlearn", "a.retain", "b.unlearn"):
        (tmp_path / "scores" / f"{name}.safetensors").touch()
    keep_scores(tmp_path, ["a.unlearn", "a.retain"])
    assert {p.stem for p in (tmp_path / "scores").iterdir()} == {"a.unlearn", "a.retain"}


def test_a_mask_is_whole_or_not_there(tmp_path):
    import torch

    from grail.artifacts import Mask, write_mask

    bits = {"w": torch.tensor([True, False])}
    write_mask(tmp_path / "mask.safetensors", Mask(bits, bits, bits, {"freeze": "by_side"}), "key")
    assert not has_mask(tmp_path, by_side=False)  # its description is missing
    (tmp_path / "localization.json").write_text("{}")
    assert has_mask(tmp_path, by_side=True)
    (tmp_path / "mask.retain.safetensors").write_bytes(b"half")
    assert has_mask(tmp_path, by_side=False)
    assert not has_mask(tmp_path, by_side=True)
    (tmp_path / "localization.json").write_text("{")
    assert not has_mask(tmp_path, by_side=False)
    drop_mask(tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_are_those_of_the_stamp(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    values = {"inputs": "key", "weights": weights_digest(tmp_path)}
    (tmp_path / STAMP).write_text(json.dumps(values))
    assert stamp(tmp_path) == values
    check_weights(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"two")
    with pytest.raises(InputError, match="is damaged"):
        check_weights(tmp_path)


def test_a_finished_training_leaves_no_checkpoint(tmp_path):
    place = checkpoint_of(tmp_path / "unlearned")
    assert place == tmp_path / "unlearned.checkpoint"
    drop_checkpoint(tmp_path / "unlearned")
    place.mkdir()
    (place / "weights").touch()
    drop_checkpoint(tmp_path / "unlearned")
    assert not place.exists()
