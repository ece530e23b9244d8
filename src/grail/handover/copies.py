"""The copies of a run's models that grail wrote elsewhere: where they are, and which still know.

They are noted in ``copies.json`` of the run directory, so that they can be found again.
"""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from grail.files import file_digest, read_json, write_json
from grail.handover.delta import DELTA
from grail.model.sources import weight_files
from grail.run.directory import weights_digest

COPIES = "copies.json"
KNOWING = ("delta", "before")
"""Kinds of copies that give back what was removed; a delta does so beside the result."""


def note_copy(run: Path, kind: str, folder: Path) -> dict[str, str]:
    """Note a copy: its kind, folder, digest of weights, and today; return its files' digests."""
    today = datetime.now(timezone.utc).date().isoformat()
    place = {"kind": kind, "folder": str(folder.resolve()), "date": today}
    entry = {**place, "weights": weights_digest(folder)}
    write_json(run / COPIES, {"copies": [*copies_of(run), entry]})
    return {file.name: file_digest(file) for file in sorted(folder.iterdir()) if file.is_file()}


def copies_of(run: Path) -> list[dict[str, Any]]:
    """Return the copies in the order in which they were made; ValueError if the file is damaged."""
    return read_json(run / COPIES)["copies"] if (run / COPIES).exists() else []


def is_there(copy: dict[str, Any]) -> bool:
    """Tell whether a noted copy lies where it was put, with the same weights."""
    folder = Path(copy["folder"])
    return folder.is_dir() and weights_digest(folder) == copy["weights"]


def weights_left(copy: dict[str, Any]) -> list[Path]:
    """Return the files of a noted copy that hold weights or their difference, if any are left.

    What else lies in its folder tells nothing, and may be its owner's.
    """
    folder = Path(copy["folder"])
    delta = folder / DELTA
    return [delta] if delta.is_file() else weight_files(folder) if folder.is_dir() else []


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 if there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
