"""One command at a time in a run directory, and what killed ones left there is removed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grail.errors import InputError
from grail.files import PARTIAL, sweep_leftovers
from grail.run import manifest

# A training that was interrupted goes on in its half-written log.
_FILES = {name for name in manifest.NAMES if not name.endswith("train.jsonl")}
_FILES |= {manifest.MANIFEST}
_FOLDERS = [*manifest.MODELS, *(f"{model}.checkpoint" for model in manifest.MODELS)]
_WRITTEN = (".safetensors", ".json", ".jsonl", ".md")
"""Endings of the files that grail writes into folders of a run."""
_OWNER_ALONE = 0o077


@contextmanager
def alone(folder: Path, private: bool = True, main: bool = True) -> Iterator[None]:
    """Hold the run directory: two commands in one directory would undo each other's work.

    The lock dies with the process, however it dies. Whoever leaves nothing but the lock leaves no
    folder either. What killed commands left half-written is removed.

    With ``private``, new files and folders can be read by their owner alone: many hold what is to
    be erased, or can give it back. Only the ``main`` process of a run holds it.

    Raises:
        InputError: if another command holds it, or it cannot be made.
    """
    if not main:
        yield
        return
    os.umask(mask := os.umask(0))  # the only way to ask for it
    try:
        os.umask(_OWNER_ALONE if private else mask)
        with _locked(folder):
            sweep_leftovers(folder, _FILES, _FOLDERS)
            for place in ("scores", "evaluation", "audit"):
                left = [file.stem for file in (folder / place).glob(f"*{PARTIAL}")]
                sweep_leftovers(folder / place, [n for n in left if n.endswith(_WRITTEN)])
            yield
    finally:
        os.umask(mask)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    fresh = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output: {folder} cannot be made ({error.strerror}). Choose another --output."
        ) from error
    lock = folder / ".lock"
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"output: another grail is at work in {folder}. Wait, or choose another --output."
            ) from error
        try:
            yield
        finally:
            if not (folder / "config.yaml").exists():
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # somebody else put something there
                    for place in fresh:
                        place.rmdir()
