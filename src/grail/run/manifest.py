"""``manifest.json`` of a run directory: the SHA-256 of every file that a stage or an audit wrote.

Each stage records what it wrote; whoever reads a file can ask whether it still is what was written.
A file is hashed once, when it is recorded. Needs no torch.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import CHANGED, OLD, PARTIAL, REMADE, file_digest, read_json, write_json

MANIFEST = "manifest.json"
MASKS = ("mask.safetensors", "mask.unlearn.safetensors", "mask.retain.safetensors")
MODELS = ("vanilla", "unlearned")
LOOKS, GUESSED = "evaluation/steps.json", "evaluation/guess.json"
MEASURED = tuple(
    f"evaluation/{name}.json"
    for name in (
        "vanilla",
        "unlearned",
        "calibrated",
        "guess",
        "general.vanilla",
        "general.unlearned",
        "neighbours",
    )
)
RESULTS = ("results.json", "samples.jsonl", "general.json", "general_samples.jsonl")
REPORT = ("report.md", "report.html")
AUDIT = ("audit", "audit.json")
REPORTED = ("config.yaml", "localization.json", "train.jsonl", "unlearned/stage.json", "audit.json")
REPORTED += (*RESULTS, LOOKS)
"""What a report shows."""
NAMES = ("config.yaml", *MODELS, "vanilla.train.jsonl", "scores", *MASKS, "localization.json")
NAMES += ("survivors.safetensors", "rewrites.json", "train.jsonl", "evaluation", *RESULTS)
NAMES += (*REPORT, *AUDIT)
"""Files and folders that a manifest is about; others in the directory are not grail's evidence."""


def record(folder: Path, *names: str) -> None:
    """Add the files that have no entry yet, and drop the entries of files that are gone.

    An entry that is there stays as it is, so that recording never covers up a change: who writes a
    file anew calls ``drop`` before. ``names`` are files and folders; none: all of ``NAMES``. Some
    alone are recorded only where there is a manifest: one of a part would be no manifest of the
    directory.
    """
    content, found = _read(folder), set(files_of(folder, *names))
    if content is None and names:
        return
    content = content or _empty()
    kept = {n: e for n, e in content["files"].items() if n in found or not _covers(names, n)}
    files = kept | {name: _entry(folder / name) for name in sorted(found - kept.keys())}
    purged = {name: entry for name, entry in content["purged"].items() if name not in files}
    _write(folder, content | {"files": files, "purged": purged})


def drop(folder: Path, *names: str) -> None:
    """Drop entries: what they name is about to be written anew."""
    content = _read(folder)
    if content is not None:
        files = {n: e for n, e in content["files"].items() if not _covers(names, n)}
        _write(folder, content | {"files": files})


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is recorded of each file, by its name; of purged ones too, with their "date"."""
    content = _read(folder) or _empty()
    return content["files"] | content["purged"]


def record_purged(folder: Path, paths: Iterable[Path | str]) -> None:
    """Move files, and all files in folders, to the list of what was deleted on purpose, with today.

    Call it before they are deleted: what has no entry yet is hashed here. Paths are absolute or
    relative to the run directory; ValueError for one outside.
    """
    content = _read(folder) or _empty()
    today = datetime.now(timezone.utc).date().isoformat()
    base = folder.absolute()
    names = [(base / path).relative_to(base).as_posix() for path in paths]
    gone = {n: e for n, e in content["files"].items() if _covers(names, n)}
    for name in _files_in(folder, names):
        gone.setdefault(name, _entry(folder / name))
    files = {n: e for n, e in content["files"].items() if n not in gone}
    purged = {n: {**e, "date": today} for n, e in gone.items()}
    _write(folder, content | {"files": files, "purged": content["purged"] | purged})


def changed(folder: Path, *names: str) -> list[Path]:
    """Return the recorded files that are missing, or whose content is not what was recorded.

    ``names`` are files and folders; none: all that is recorded. A run directory without a manifest
    has recorded nothing; InputError if the manifest itself is damaged.
    """
    content = _read(folder) or _empty()
    asked = {name: e for name, e in content["files"].items() if _covers(names, name)}
    return [folder / name for name, entry in asked.items() if _differs(folder / name, entry)]


def missing(folder: Path) -> list[Path]:
    """Return the recorded files that are not there, unless purged; nothing is read."""
    names = (_read(folder) or _empty())["files"]
    return [folder / name for name in names if not (folder / name).is_file()]


def problems(folder: Path) -> list[str]:
    """Return a sentence for each recorded file that is missing or changed, and each that was added.

    Nothing was added unless grail would read it. What was purged is no problem, unless it is back.
    """
    try:
        content = _read(folder)
    except InputError as error:
        return list(error.problems)
    if content is None:
        return [f"{MANIFEST} is missing: nothing tells which files grail wrote."]
    files, purged = content["files"], content["purged"]
    texts = []
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            texts.append(f"{name} is missing.")
        elif (found := file_digest(path)) != entry["sha256"]:
            size = path.stat().st_size
            texts.append(
                f"{name} was changed: SHA-256 {found} ({size} bytes), recorded "
                f"{entry['sha256']} ({entry['bytes']} bytes)."
            )
    for name in sorted(set(files_of(folder)) - files.keys()):
        since = f"is back, but was purged on {purged[name]['date']}" if name in purged else "is new"
        texts.append(f"{name} {since}: no stage recorded it.")
    return texts


def files_of(folder: Path, *names: str) -> list[str]:
    """Return the files on disk that a manifest is about, as far as names cover them (none: all)."""
    return [name for name in _files_in(folder, NAMES) if _covers(names, name)]


def purged(folder: Path) -> dict[str, str]:
    """Return the date of each file that was purged."""
    return {name: entry["date"] for name, entry in (_read(folder) or _empty())["purged"].items()}


def require(folder: Path, *names: str) -> None:
    """Refuse recorded files that were changed; those that are missing are their reader's matter."""
    texts = [f"{CHANGED.format(path)}." for path in changed(folder, *names) if path.exists()]
    if texts:
        raise InputError(texts)


def require_settings(source: Path | None) -> None:
    """Refuse a run directory, or the settings file in one, whose ``config.yaml`` was changed."""
    folder = source if source is None or source.is_dir() else source.parent
    if folder is not None and (source == folder or source == folder / "config.yaml"):
        require(folder, "config.yaml")


def discard(folder: Path, warn: Callable[[str], None], *names: str) -> None:
    """Delete recorded files that were changed, with a word each, and drop the entries of all.

    They are made again next, or kept, and recorded as they are then.
    """
    for path in changed(folder, *names):
        if path.exists():
            warn(REMADE.format(path))
            path.unlink()
    drop(folder, *names)


def renew(folder: Path, warn: Callable[[str], None]) -> None:
    """Delete a damaged manifest with a word: the next stage records the files as they are."""
    try:
        _read(folder)
    except InputError:
        warn(REMADE.format(folder / MANIFEST))
        (folder / MANIFEST).unlink()


def _read(folder: Path) -> dict[str, Any] | None:
    """Return the manifest; None without one."""
    path = folder / MANIFEST
    try:
        content = read_json(path)
        kinds = [content["files"], content["purged"]]
        if content["version"] == 1 and all(_is_entry(*pair) for k in kinds for pair in k.items()):
            return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{CHANGED.format(path)}.")


def _is_entry(name: object, entry: dict[str, Any]) -> bool:
    return isinstance(name, str) and (type(entry["sha256"]), type(entry["bytes"])) == (str, int)


def _write(folder: Path, content: dict[str, Any]) -> None:
    for key in ("files", "purged"):
        content[key] = dict(sorted(content[key].items()))
    if (folder / MANIFEST).exists() and _read(folder) == content:
        return
    write_json(folder / MANIFEST, content)


def _empty() -> dict[str, Any]:
    return {"version": 1, "files": {}, "purged": {}}


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_digest(path), "bytes": path.stat().st_size}


def _differs(path: Path, entry: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return True
    return file_digest(path) != entry["sha256"]


def _covers(names: Iterable[str], name: str) -> bool:
    """Tell whether a file is among names, or in a folder among them; no names are all."""
    names = tuple(names)
    return not names or any(name == own or name.startswith(f"{own}/") for own in names)


def _files_in(folder: Path, names: Iterable[str]) -> Iterator[str]:
    for top in (folder / name for name in names):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix not in (PARTIAL, OLD):
                yield path.relative_to(folder).as_posix()
