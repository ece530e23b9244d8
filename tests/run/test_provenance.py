"""Versions, revision and identity: the same for the same things, and without any time."""

import json
import os
import random
import shutil
import subprocess

import pytest

from grail import __version__
from grail.errors import InputError
from grail.model.sources import Source
from grail.run import provenance
from grail.run.provenance import (
    BLOCK,
    BLOCKS,
    PACKAGES,
    made_with,
    model_identity,
    other_base,
    revision,
)


def git(folder, *words):
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the module in a folder of its own, as after an installation."""
    folder = tmp_path / "grail"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(folder / "run" / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    return folder


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


def test_no_revision_outside_a_checkout(package):
    assert revision() is None


@needs_git
def test_no_revision_in_a_checkout_of_something_else(package):
    """An environment inside somebody's repository is not a checkout of grail."""
    git(package.parent, "init", "-q")
    git(package.parent, "commit", "-q", "--allow-empty", "-m", "theirs")
    assert revision() is None


@needs_git
def test_the_revision_says_whether_there_are_changes(package):
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "ours")
    clean = revision()
    assert clean is not None
    assert len(clean) == 40
    (package / "run" / "provenance.py").write_text("x = 1")
    assert revision() == f"{clean}+changes"


def test_no_revision_without_git(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert revision() is None


def test_made_with_names_versions_and_data(package):
    found = made_with("m", {"d.unlearn.train": "ab"})
    assert found["model"] == "m"
    assert found["grail"] == __version__
    assert found["git"] is None
    assert found["data"] == {"d.unlearn.train": "ab"}
    assert set(found["packages"]) == set(PACKAGES)
    assert all(found["packages"].values())
    assert found == made_with("m", {"d.unlearn.train": "ab"})


@pytest.fixture
def base(tmp_path):
    """A folder with a small file and one that is too large to be read whole."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"layers": 2}')
    (folder / "model.safetensors").write_bytes(random.Random(0).randbytes(BLOCKS * BLOCK + 4321))
    return folder


def test_a_copied_or_touched_model_is_the_same(base, tmp_path):
    found = model_identity(str(base))
    for file in base.iterdir():
        os.utime(file, ns=(1, 1))
    assert model_identity(str(base)) == found
    shutil.copytree(base, tmp_path / "elsewhere" / "other name")
    assert model_identity(str(tmp_path / "elsewhere" / "other name")) == found


def test_a_changed_byte_of_a_small_file_is_another_model(base):
    found, file = model_identity(str(base)), base / "config.json"
    stat = file.stat()
    file.write_text('{"layers": 3}')
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model_identity(str(base)) != found


def test_retrained_weights_are_another_model(base):
    """The size and the time are those of before; every weight moved a little."""
    found, file = model_identity(str(base)), base / "model.safetensors"
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(bytes(byte ^ 1 for byte in content))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model_identity(str(base)) != found
    for changed in (b"x" + content[1:], content[:-1] + b"x", content + b"x"):
        assert changed != content
        file.write_bytes(changed)  # the first block, the last, the size
        assert model_identity(str(base)) != found
    file.write_bytes(content)
    assert model_identity(str(base)) == found


def test_no_long_stretch_of_a_large_file_is_left_out(base):
    file = base / "model.safetensors"
    content = file.read_bytes() * 3
    file.write_bytes(content)
    found = model_identity(str(base))
    for start in range(0, len(content) - 4 * BLOCK, 23 * BLOCK):  # samples begin three blocks apart
        file.write_bytes(content[:start] + bytes(4 * BLOCK) + content[start + 4 * BLOCK :])
        assert model_identity(str(base)) != found


def test_an_adapter_counts_too(base, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    found = model_identity(str(adapter))
    assert found != model_identity(str(base))
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "r": 4}))
    changed = model_identity(str(adapter))
    assert changed != found
    (base / "config.json").write_text('{"layers": 3}')
    assert model_identity(str(adapter)) not in (found, changed)


def test_a_single_file_is_known_by_its_contents_and_a_hub_id_by_itself(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"one")
    found = model_identity(str(tmp_path / "m.gguf"))
    (tmp_path / "m.gguf").write_bytes(b"two")
    assert model_identity(str(tmp_path / "m.gguf")) != found
    assert model_identity("owner/one") == model_identity("owner/one")
    assert model_identity("owner/one") != model_identity("owner/two")


READ = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
READ += ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
READ += ("tokenizer.model", "chat_template.jinja", "additional_chat_templates/tools.jinja")
UNREAD = (".DS_Store", "README.md", "notes.txt", ".git/objects/ab/cd", "pytorch_model.bin")
UNREAD += ("checkpoint-10/model.safetensors", "runs/x/vanilla/adapter_model.safetensors")
UNREAD += ("training_args.bin", "original/config.json", "model.safetensors.index.json")


@pytest.mark.parametrize("name", READ + UNREAD)
def test_what_is_read_counts_and_nothing_else(name, base):
    found, file = model_identity(str(base)), base / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"a": "b"}')
    changed = model_identity(str(base))
    assert (changed != found) == (name in READ)
    file.write_text('{"a": "c"}')
    assert (model_identity(str(base)) != changed) == (name in READ)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_the_shards_that_are_listed_count(kind, tmp_path):
    stem, end = kind.split(".")
    names = [f"{stem}-0000{n}-of-00002.{end}" for n in (1, 2)]
    index = {"weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / f"{kind}.index.json").write_text(json.dumps(index))
    found = {model_identity(str(tmp_path))}
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
        found.add(model_identity(str(tmp_path)))
    assert len(found) == 3
    (tmp_path / f"{stem}-00003-of-00003.{end}").write_bytes(b"of another save")
    assert model_identity(str(tmp_path)) in found


@pytest.fixture
def given(base, tmp_path):
    """A function that writes an adapter which names a base; returns its folder."""

    def write(named):
        folder = tmp_path / "given"
        folder.mkdir(exist_ok=True)
        settings = {"base_model_name_or_path": named, "peft_type": "LORA"}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        return folder

    return write


def test_a_given_adapter_counts_with_its_tokenizer_and_without_notes(base, given):
    adapter = given(str(base))
    found = model_identity(str(base), str(adapter))
    assert found not in (model_identity(str(base)), model_identity(str(base), str(base)))
    for name in ("README.md", "optimizer.pt", ".git"):
        (adapter / name).write_text("x")
        assert model_identity(str(base), str(adapter)) == found
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (adapter / name).write_text("x")
        changed = model_identity(str(base), str(adapter))
        assert changed != found
        found = changed


def test_the_base_that_an_adapter_names(base, given, tmp_path, monkeypatch):
    same = tmp_path / "same weights"
    shutil.copytree(base, same)
    (same / "README.md").write_text("a copy")
    for name in (str(base), str(same), None, ""):
        assert other_base(str(base), str(given(name))) is None
    assert other_base(str(base), str(given("owner/name"))) == "owner/name"
    monkeypatch.chdir(tmp_path)
    assert other_base(str(base), str(given("base"))) is None  # PEFT looks from here
    (same / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match=r"^teach\.adapter: .* was trained on .*same weights"):
        other_base(str(base), str(given(str(same))))


def test_the_converted_base_of_a_gguf_file_is_that_file(base, given, tmp_path, monkeypatch):
    """An adapter that grail trained on a GGUF file names the folder that it was unpacked to."""
    monkeypatch.setattr(Source, "unpacked", lambda self: str(base))
    (tmp_path / "m.gguf").write_bytes(b"packed")
    assert other_base(str(tmp_path / "m.gguf"), str(given(str(base)))) is None
