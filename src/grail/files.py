"""Atomic writing of files and folders, digests, JSON and YAML."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

PARTIAL, OLD = ".partial", ".old"
SEAL = "sha256"  # key under which an output holds the digest of all else that it holds
CHANGED = (
    "{} is not as grail wrote it: it was edited or damaged since, or an older grail wrote it. "
    "Delete it and run again"
)
REMADE = f"{CHANGED.partition('. ')[0]}. It is made again"
_DEEPEST, _MOST_VALUES = 100, 1_000_000  # of a YAML text


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success its file replaces ``path``.

    ``path`` is never seen half-written: on an exception, and when the process is killed, it keeps
    its old content. Who could read the old file can read the new one, and nobody else.

    Raises:
        OSError: naming a file, if the disk is full or does not take it for another reason.
    """
    partial = path.with_name(path.name + PARTIAL)
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            if path.exists():
                shutil.copymode(path, partial)
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Raise an error of the system as an ``OSError`` with a file's name, ``path`` if it has none.

    A full disk is told without a name by Python, and as text by libraries in Rust.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        if code := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces the folder ``path``.

    Folders cannot be exchanged in one step: the old one is first renamed to ``NAME.old``. On an
    exception it gets its name back. If the process is killed between the two renames, ``path`` is
    missing until the next call, or ``recover_folder``, puts the old folder back.
    """
    path = path.resolve()  # a link, to a larger disk for example, stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    recover_folder(path)
    partial.mkdir()
    with _named_errors(path):
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
    path = path.resolve()
    old = path.with_name(path.name + OLD)
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def sweep_leftovers(folder: Path, files: Collection[str], folders: Collection[str] = ()) -> None:
    """Remove what killed writes of ``files`` left, and finish the exchange of ``folders``.

    Links are left alone, and so is everything under other names.
    """
    for name in files:
        partial = folder / f"{name}{PARTIAL}"
        if partial.is_file() and not partial.is_symlink():
            partial.unlink()
    for name in folders:
        if not (folder / name).is_symlink():
            recover_folder(folder / name)
            shutil.rmtree(folder / f"{name}{PARTIAL}", ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8; see ``replacing_file``."""
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, an object with its own digest under "sha256" at the end.

    NaN and infinities raise ``ValueError``.
    """
    if isinstance(value, dict):
        read_back = json.loads(json.dumps(value, allow_nan=False))  # keys are text there
        value = {**value, SEAL: digest(read_back)}
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that ``write_json`` wrote to ``path``, without its digest.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if its content is not what was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value.pop(SEAL) == digest(value):
            return value
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(CHANGED.format(path))


def cached(
    path: Path,
    key: str,
    make: Callable[[], dict[str, Any]],
    on_hit: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda _: None,
    write: bool = True,
) -> dict[str, Any]:
    """Return the JSON object at ``path`` if it was made from ``key``; else make it and write it.

    The file holds the object with ``key`` as its first value, "inputs". A file that is absent,
    damaged, edited or of another key is replaced.

    Args:
        path: The file.
        key: Digest of everything that the object depends on.
        make: Returns the object.
        on_hit: Called if the stored object is returned.
        warn: Called with a text if the file is there, but not as it was written.
        write: Whether this process writes what it made; another one does otherwise.
    """
    try:
        stored = read_json(path)
    except FileNotFoundError:
        stored = {}
    except (OSError, ValueError):
        stored = {}
        warn(REMADE.format(path))
    if stored.pop("inputs", None) == key:
        on_hit()
        return stored
    made = make()
    if write:
        write_json(path, {"inputs": key, **made})
    return made


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


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values only (in C where it is compiled); ``1e-3`` is a number, a key is given once."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse a second value for a key, before keys are merged in; PyYAML keeps the last one."""
        checked: set[int] = self.__dict__.setdefault("checked_nodes", set())
        if id(node) in checked:
            return super().flatten_mapping(node)
        checked.add(id(node))
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key '{key.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().flatten_mapping(node)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes every text that ``_Loader`` would read as a number."""


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
"""Numbers with an exponent; YAML 1.1, which PyYAML follows, knows "1.0e-3" but not "1e-3"."""
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text: mappings, lists, text, numbers, dates, nothing else.

    Raises:
        yaml.YAMLError: if it is not valid YAML, nested too deeply or of too many values (anchors
            multiply), or a mapping gives a key twice.
    """
    _check_size(text)
    return yaml.load(text, Loader=_Loader)


def _check_size(text: str) -> None:
    """Refuse a text whose value would overflow the stack or the memory, before it is built."""
    sizes: dict[str | None, int] = {}
    around: list[tuple[str | None, int]] = []  # anchor, and size so far, of the open collections
    for event in yaml.parse(text, Loader=_Loader):
        anchor, size = getattr(event, "anchor", None), int(isinstance(event, yaml.ScalarEvent))
        if isinstance(event, yaml.CollectionStartEvent):
            around.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = around.pop()
        elif isinstance(event, yaml.AliasEvent):
            inside_itself = anchor in (name for name, _ in around)
            size = _MOST_VALUES if inside_itself else sizes.get(anchor, 1)
        sizes[anchor] = size
        if around and size:
            around[-1] = (around[-1][0], around[-1][1] + size)
        if len(around) > _DEEPEST or size >= _MOST_VALUES:
            problem = "nested too deeply, or anchors multiply to too many values"
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)


def dump_yaml(values: Any) -> str:
    """Return ``values`` as YAML, keys in the order of the mapping."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
