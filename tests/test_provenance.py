"""Versions, revision and identity: the same for the same things, and without any time."""

import os
import shutil
import subprocess

import pytest

from grail import __version__, provenance
from grail.provenance import PACKAGES, made_with, model_identity, revision
from grail.weights import Source


def git(folder, *words):
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the module in a folder of its own, as after an installation."""
    folder = tmp_path / "grail"
    folder.mkdir()
    (folder / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
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
    (package / "provenance.py").write_text("x = 1")
    assert revision() == f"{clean}+changes"


def test_no_revision_without_git(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert revision() is None


def test_made_with_names_versions_and_data(package):
    found = made_with({"d.unlearn.train": "ab"})
    assert found["grail"] == __version__
    assert found["git"] is None
    assert found["data"] == {"d.unlearn.train": "ab"}
    assert set(found["packages"]) == set(PACKAGES)
    assert all(found["packages"].values())
    assert found == made_with({"d.unlearn.train": "ab"})


def test_a_model_is_known_by_its_files(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
        (folder / "weights").write_bytes(b"1234")
    found = model_identity(Source(str(base), adapter))
    assert found == model_identity(Source(str(base), adapter))
    assert found != model_identity(Source(str(base)))
    for file in (base / "weights", adapter / "weights"):
        before, stat = model_identity(Source(str(base), adapter)), file.stat()
        file.write_bytes(b"5678")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        assert model_identity(Source(str(base), adapter)) != before
    assert model_identity(Source("owner/one")) != model_identity(Source("owner/two"))
