"""What holds in a run directory, and what is dropped."""

import pytest
import yaml

from grail.artifacts import STAMP
from grail.config.run import parse_config
from grail.errors import InputError
from grail.files import write_json
from grail.run import manifest
from grail.run.directory import (
    checkpoint_of,
    drop_checkpoint,
    drop_mask,
    has_mask,
    has_settings,
    is_made,
    keep_scores,
    outdate,
    sound,
    stamp,
    weights_digest,
)

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
CONFIG = parse_config({"domains": {"d": SIDES}, "output": "x"})


def test_the_same_settings_are_recognised(tmp_path):
    heard = []
    assert not has_settings(tmp_path, CONFIG, {}, heard.append)
    values = CONFIG.model_dump(mode="json", exclude={"made_with"}) | {"made_with": {"grail": "1"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert has_settings(tmp_path, CONFIG, {"grail": "1"}, heard.append)
    assert not has_settings(tmp_path, CONFIG, {"grail": "2"}, heard.append)
    assert not has_settings(
        tmp_path, CONFIG.model_copy(update={"seed": 1}), {"grail": "1"}, heard.append
    )
    manifest.record(tmp_path)
    assert has_settings(tmp_path, CONFIG, {"grail": "1"}, heard.append)
    assert not heard
    with (tmp_path / "config.yaml").open("a") as file:
        file.write("# the same settings, but not what was written")
    assert not has_settings(tmp_path, CONFIG, {"grail": "1"}, heard.append)
    assert "config.yaml is not as grail wrote it" in heard[0]
    for broken in ("[", "a: b", "", "\x00"):
        (tmp_path / "config.yaml").write_text(broken)
        assert not has_settings(tmp_path, CONFIG, {"grail": "1"}, heard.append)


def test_only_results_are_outdated(tmp_path):
    for name in (*manifest.RESULTS, "train.jsonl", "config.yaml"):
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
    told: list[str] = []
    assert not has_mask(tmp_path, False, told.append)  # its description is missing
    write_json(tmp_path / "localization.json", {"k": 1})
    assert has_mask(tmp_path, True, told.append)
    assert not told
    (tmp_path / "mask.retain.safetensors").write_bytes(b"half")
    assert has_mask(tmp_path, False, told.append)
    assert not has_mask(tmp_path, True, told.append)
    assert "mask.retain.safetensors is not as grail wrote it" in told.pop()
    (tmp_path / "localization.json").write_text('{"k": 2}')
    assert not has_mask(tmp_path, False, told.append)
    assert "localization.json is not as grail wrote it" in told.pop()
    drop_mask(tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_are_those_of_the_stamp(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    values = {"inputs": "key", "weights": weights_digest(tmp_path)}
    write_json(tmp_path / STAMP, values)
    assert stamp(tmp_path) == values
    sound(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"two")
    with pytest.raises(InputError, match="is damaged: its weights are not those"):
        sound(tmp_path)


def test_a_model_is_not_sound_without_what_was_written_beside_its_weights(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "tokenizer.json").write_text("{}")
    files = ["a.safetensors", "tokenizer.json"]
    write_json(tmp_path / STAMP, {"weights": weights_digest(tmp_path), "files": files})
    sound(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"is damaged: tokenizer\.json is gone"):
        sound(tmp_path)


def test_a_finished_training_leaves_no_checkpoint(tmp_path):
    place = checkpoint_of(tmp_path / "unlearned")
    assert place == tmp_path / "unlearned.checkpoint"
    drop_checkpoint(tmp_path / "unlearned")
    place.mkdir()
    (place / "weights").touch()
    drop_checkpoint(tmp_path / "unlearned")
    assert not place.exists()


def test_a_finished_training_leaves_no_half_written_log(tmp_path):
    for model, log in (("vanilla", "vanilla.train.jsonl"), ("unlearned", "train.jsonl")):
        (half := tmp_path / f"{log}.partial").touch()
        (tmp_path / log).touch()
        drop_checkpoint(tmp_path / model)
        assert not half.exists()
        assert (tmp_path / log).exists()


def test_an_output_is_made_if_its_inputs_are_these_and_nobody_changed_it_since(tmp_path):
    model, heard = tmp_path / "vanilla", []
    model.mkdir()
    (model / "tokenizer.json").write_text("{}")
    write_json(model / STAMP, {"inputs": "key", "weights": weights_digest(model)})
    manifest.record(tmp_path)
    assert is_made(tmp_path, model, "key", heard.append)
    assert not heard
    assert not is_made(tmp_path, model, "another", heard.append)
    assert heard == [f"{model} was made with other settings or data: making it again."]
    (model / "tokenizer.json").write_text("[]")
    assert not is_made(tmp_path, model, "key", heard.append)
    assert "tokenizer.json is not as grail wrote it" in heard[1]
    assert not is_made(tmp_path, tmp_path / "unlearned", "key", heard.append)
    assert len(heard) == 2  # what was never made is made without a word


def test_weights_that_were_deleted_before_they_were_recorded_are_made_again(tmp_path):
    model = tmp_path / "vanilla"
    model.mkdir()
    (model / "a.safetensors").write_bytes(b"one")
    write_json(model / STAMP, {"inputs": "key", "weights": weights_digest(model)})
    (model / "a.safetensors").unlink()
    manifest.record(tmp_path)  # knows the stamp alone
    heard = []
    assert not is_made(tmp_path, model, "key", heard.append)
    assert "vanilla is not as grail wrote it" in heard.pop()
