"""A model's shapes without its weights are those of the model."""

import json

import pytest

from grail.config.file import load_config
from grail.errors import InputError
from grail.forecast import outline as module
from grail.forecast.machine import shape_of
from grail.forecast.outline import at_hand, outline
from grail.model.load import load_model


@pytest.mark.parametrize("lora", [True, False])
def test_the_outline_has_the_numbers_of_the_model(tiny_config, lora):
    sections = {"model": {"dtype": "float32"}} if lora else {}
    config = load_config(tiny_config(**sections), [] if lora else ["model.lora=null"], None)
    whole = load_model(config.model, None, 0)
    drawn = outline(config)
    assert shape_of(drawn) == shape_of(whole)
    assert {p.device.type for p in drawn.parameters()} == {"meta"}


def test_what_is_at_hand(tiny_model_folder, tmp_path, monkeypatch):
    assert at_hand(str(tiny_model_folder))
    assert not at_hand("nobody/has-this-model")
    monkeypatch.setattr(module, "_memory", lambda: 1000)
    assert not at_hand(str(tiny_model_folder))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text(json.dumps({"model_type": "llama"}))
    monkeypatch.undo()
    assert not at_hand(str(empty))


def test_settings_that_cannot_be_read(tiny_config):
    config = load_config(tiny_config(), ["model.name=nobody/has-this-model"], None)
    with pytest.raises(InputError, match=r"model\.name"):
        outline(config)
