"""Atomic writing of files and folders, digests, JSON and YAML."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

PARTIAL, OLD = ".partial", ".old"


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success its file replaces ``path``.

    ``path`` is never seen half-written: on an exception, and when the process is killed, it keeps
    its old content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces the folder ``path``.

    Folders cannot be exchanged in one step: the old one is first renamed to ``NAME.old``. On an
    exception it gets its name back. If the process is killed between the two renames, ``path`` is
    missing until the next call, or ``recover_folder``, puts the old folder back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    recover_folder(path)
    partial.mkdir()
    try:
        yield partial
        for entry in partial.rglob("*"):
            if entry.is_file():
                _sync(entry)
        if path.exists():
            path.rename(path.with_name(path.name + OLD))
        partial.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        recover_folder(path)


def recover_folder(path: Path) -> None:
    """Finish a replacement that was cut off: ``NAME.old`` becomes ``path`` if that is missing.

    If ``path`` is there, the new folder is complete and the old one is deleted.
    """
    old = path.with_name(path.name + OLD)
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8; see ``replacing_file``."""
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinities raise ``ValueError``."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def digest(value: Any) -> str:
    """Return the SHA-256 of ``value`` as JSON with sorted keys: equal values, equal digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder."""
    sha = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            # Names contain no zero byte and digests have one length, so the text is unambiguous.
            sha.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}".encode())
        return sha.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _sync(path: Path) -> None:
    """Wait until the file or folder ``path`` is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text: mappings, lists, text, numbers, dates, nothing else.

    Raises:
        yaml.YAMLError: if it is not valid YAML.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C: ten times as fast
    return yaml.load(text, Loader=loader)


def dotted(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every leaf of nested mappings; keys begin with ``path``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def dump_yaml(values: Any) -> str:
    """Return ``values`` as YAML; keys keep their order."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(values, Dumper=dumper, sort_keys=False, allow_unicode=True)
