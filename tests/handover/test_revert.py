"""The way back gives the model before, bit for bit; after a purge there is none."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from grail.cli.main import main
from grail.errors import InputError
from grail.files import file_digest
from grail.handover.copies import copies_of
from grail.handover.revert import revert
from grail.run import directory, manifest


def test_a_taught_model_comes_back_bit_for_bit(finished, tmp_path):
    finished()
    run = tmp_path / "run"
    found = revert(run, tmp_path / "out")
    stamp = directory.stamp(run / "vanilla")
    assert directory.weights_digest(tmp_path / "out") == stamp["weights"]
    assert found["from"] == str(run / "vanilla")
    assert found["files"]["adapter_model.safetensors"] == file_digest(
        run / "vanilla" / "adapter_model.safetensors"
    )
    assert {"tokenizer.json", "adapter_config.json"} <= found["files"].keys()
    assert "stage.json" not in found["files"]
    assert [copy["kind"] for copy in copies_of(run)] == ["before"]


@pytest.fixture
def given(tiny_model, tiny_tokenizer, tiny_config, tmp_path):
    """The folder of a bfloat16 model that was taken as it is; the run keeps it in float32."""
    folder, tokenizer = tmp_path / "given", tiny_tokenizer()
    model = tiny_model(lora=False, tied=False, vocabulary=len(tokenizer))
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = {"name": str(folder), "lora": None, "dtype": "float32"}
    config = tiny_config(model=model, teach=None, evaluation={"generate": False})
    assert main(["unlearn", str(config)]) == 0
    return folder


def test_a_given_model_comes_back_in_its_own_files(given, tmp_path):
    file = given / "model.safetensors"
    found = revert(tmp_path / "run", tmp_path / "out")
    assert found["from"] == str(given)
    for path in given.iterdir():
        assert found["files"][path.name] == file_digest(path)
    weights = load_file(file)
    name = min(weights)
    save_file(weights | {name: weights[name] + 1}, file, {"format": "pt"})  # no longer the same
    found = revert(tmp_path / "run", tmp_path / "kept")
    assert found["from"] == str(tmp_path / "run" / "vanilla")
    kept = load_file(tmp_path / "kept" / "model.safetensors")
    assert all(torch.equal(kept[key], weights[key].float()) for key in weights)


def test_after_a_purge_there_is_no_way_back(finished, tmp_path):
    finished()
    manifest.record_purged(tmp_path / "run", ["vanilla"])
    with pytest.raises(InputError, match="is gone, on purpose"):
        revert(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["purged"]
