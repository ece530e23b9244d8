"""Delete from a run directory all that still knows what was removed; the evidence stays.

Runs that share files (the cells of a comparison and their base) are purged together: a name less
leaves a shared file where it is.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from grail.config.file import load_config
from grail.errors import InputError
from grail.handover.copies import KNOWING, copies_of, is_there, size_of, weights_left
from grail.handover.evidence import is_here
from grail.reporting.run.page import report
from grail.run import lock, manifest

CELLS = ".cells"
_WEIGHTS = "the model before unlearning"
_UNFINISHED = "the state of a stage that was interrupted"
_KINDS = (
    ("vanilla/*.safetensors*", _WEIGHTS),
    ("vanilla.partial", _WEIGHTS),
    ("vanilla.old", _WEIGHTS),
    ("unlearned.partial", _UNFINISHED),
    ("unlearned.old", _UNFINISHED),
    ("*.checkpoint*", _UNFINISHED),
    ("scores", "gradients of the rows"),
    ("rewrites.json*", "answers that the model before has written"),
)
"""Pattern in a run directory -> what matches it, half-written files too."""
_TEXTS = ("samples.jsonl*", "evaluation/*.json*", "audit/*.json*")
_MARKS = (b'"prompt":', b'"completion":', b'"generation":')
"""One of these stands in a file that holds the text of a row."""


@dataclass(frozen=True)
class Knowing:
    """A file or folder that still knows: what it is, and its size in bytes."""

    run: Path
    path: Path
    what: str
    size: int


def runs_with(folder: Path) -> list[Path]:
    """Return a run directory and all that share files with it: a comparison's base and cells."""
    real = folder.resolve()
    root = real.parent.parent if real.parent.name == CELLS else real
    cells = sorted(cell for cell in (root / CELLS).glob("*") if cell.is_dir())
    copies = sorted(mark.parent.resolve() for mark in root.glob("*/*/.copy"))
    return [root, *cells, *copies] if cells else [folder]


def knowing(folder: Path) -> list[Knowing]:
    """Return what still knows in a run directory, in those that share its files, and in copies."""
    folder = folder.absolute()
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is not a run directory. Give the folder of a run.")
    found = []
    for run in runs_with(folder):
        for pattern, what in _KINDS:
            found += [Knowing(run, path, what, size_of(path)) for path in sorted(run.glob(pattern))]
        texts = (path for pattern in _TEXTS for path in sorted(run.glob(pattern)))
        found += [Knowing(run, p, "texts of rows", size_of(p)) for p in texts if _holds_text(p)]
        for copy in copies_of(run):
            if copy["kind"] in KNOWING and is_there(copy):
                what = f"a copy: {copy['kind']}"
                found += [Knowing(run, f, what, size_of(f)) for f in weights_left(copy)]
    return found


def purge(folder: Path, items: Iterable[Knowing]) -> list[str]:
    """Delete items, record them in the manifests of their runs, and write reports without texts.

    ``items`` are what ``knowing`` found. Return sentences about what is left: names of shared files
    elsewhere, and what was not grail's. InputError if another grail is at work there.
    """
    items, folder = list(items), folder.absolute()
    with ExitStack() as locks:
        for run in runs_with(folder):
            locks.enter_context(lock.alone(run))
        back = {item.path for item in items}  # what a killed command left has its name again now
        items += [item for item in knowing(folder) if item.path not in back]
        left = _names_elsewhere(items)
        for run in dict.fromkeys(item.run for item in items):
            own = [item.path for item in items if item.run == run]
            manifest.record_purged(run, [path for path in own if path.is_relative_to(run)])
            for path in own:
                _delete(path)
        for run in runs_with(folder):
            if "samples.jsonl" in manifest.purged(run):  # also by a purge that was cut off here
                _report_again(run)
    return [*left, *others(folder)]


def others(folder: Path) -> list[str]:
    """Say what knows and is not grail's to delete: data, the given model, copies that changed."""
    config = load_config(folder)
    files = {
        source
        for sides in config.domains.values()
        for source in (sides.model_dump()["unlearn"] or {}).values()
        if source and is_here(source)
    }
    sentences = [f"{file}: rows that were removed." for file in sorted(files)]
    if not (folder / "vanilla.train.jsonl").exists():
        place = config.adapter or config.model.name
        here = "" if config.adapter is None else " (an adapter)"
        sentences.append(f"{place}{here}: the model that the run was given.")
    for copy in (copy for run in runs_with(folder) for copy in copies_of(run)):
        if copy["kind"] in KNOWING and weights_left(copy):
            sentences.append(f"{copy['folder']}: a copy ({copy['kind']}) that was changed since.")
    return sentences


def _delete(path: Path) -> None:
    """Delete a file or a folder; of a link, what it points to as well."""
    if path.is_symlink() and path.exists():
        _delete(path.resolve())
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _names_elsewhere(items: Iterable[Knowing]) -> list[str]:
    """Name the files that have more hard links than those that will be deleted."""
    files = [file for item in items for file in _files(item.path)]
    links = Counter((file.stat().st_dev, file.stat().st_ino) for file in files)
    known = {(f.stat().st_dev, f.stat().st_ino): f for f in files}
    return [
        f"{file}: it has {file.stat().st_nlink - links[key]} more names elsewhere, which grail "
        "does not know. Find and delete them."
        for key, file in known.items()
        if file.stat().st_nlink > links[key]
    ]


def _report_again(run: Path) -> None:
    """Write the report anew, whose samples are gone; without results there is none."""
    manifest.drop(run, *manifest.REPORT)
    for name in manifest.REPORT:
        (run / name).unlink(missing_ok=True)
    if (run / "results.json").is_file():
        report(run)
    manifest.record(run, *manifest.REPORT)


def _holds_text(path: Path) -> bool:
    content = path.read_bytes()
    return any(mark in content for mark in _MARKS)


def _files(path: Path) -> Iterator[Path]:
    return (p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())
