"""What cannot be loaded in parts is refused; that loading works, tests/run/test_together tells."""

import pytest
import torch

from grail.config.run import Model
from grail.errors import InputError
from grail.model.sharded_files import load_parts, load_sharded, save_sharded


def test_a_folder_without_safetensors_is_refused(tiny_model_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_model_folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="has no safetensors files in a folder here"):
        load_sharded(Model(name=str(tmp_path)), 0, torch.device("cpu"))


def test_files_of_another_model_are_refused(tiny_model, tmp_path):
    tiny_model(lora=False, num_hidden_layers=1, tied=False).save_pretrained(tmp_path)
    tiny_model(lora=False, tied=False).config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lacks 9 weights \(model\.layers\.1\."):
        load_sharded(Model(name=str(tmp_path)), 0, torch.device("cpu"))


def test_an_adapter_is_refused(tiny_model, tmp_path, tiny_model_folder):
    made = tiny_model()
    made.peft_config["default"].base_model_name_or_path = str(tiny_model_folder)
    made.save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(InputError, match="a PEFT adapter cannot be loaded in parts"):
        load_sharded(Model(name=str(tmp_path)), 0, torch.device("cpu"))


@pytest.mark.parametrize("lora", [True, False])
def test_weights_are_saved_and_read_back(lora, tiny_model, tmp_path):
    """One process has one part: the whole."""
    made, other = tiny_model(lora=lora, tied=False), tiny_model(lora=lora, tied=False, seed=1)
    save_sharded(made, tmp_path)
    load_parts(other, tmp_path)
    wanted = dict(made.named_parameters())
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, wanted[name]), name
