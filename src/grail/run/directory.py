"""What lies in a run directory: which of it still holds, and which is of other settings.

Knows names of files; knows nothing of how their contents are made.
"""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from grail import artifacts
from grail.config.file import run_settings
from grail.config.run import Config
from grail.errors import InputError
from grail.files import PARTIAL, REMADE, digest, file_digest, read_json
from grail.run import manifest

LOCALIZATION = "localization.json"


def has_settings(
    folder: Path, config: Config, about: dict[str, Any], warn: Callable[[str], None]
) -> bool:
    """Tell whether ``config.yaml`` already says this: the same settings, data and versions.

    One that was changed since it was written says nothing, and is warned of.
    """
    if edited := manifest.changed(folder, "config.yaml"):
        warn(REMADE.format(edited[0]))
        return False
    wanted = config.model_dump(mode="json", exclude={"made_with"}) | {"made_with": about}
    return run_settings(folder) == wanted


def outdate(folder: Path) -> None:
    """Drop the results, which are not those of what is being made now.

    They come back from ``evaluation/`` in no time where nothing that they depend on has changed.
    """
    for name in (*manifest.RESULTS, *manifest.REPORT):
        (folder / name).unlink(missing_ok=True)


def keep_scores(folder: Path, names: Collection[str]) -> None:
    """Drop the scores of domains that are no longer asked for: ``scores/`` is taken as a whole."""
    for file in (folder / "scores").glob("*.safetensors"):
        if file.stem not in names:
            file.unlink()


def is_made(folder: Path, path: Path, key: str, warn: Callable[[str], None]) -> bool:
    """Tell whether an output was made from inputs of this digest; warn if it has to be made again.

    What a killed process left of a finished training is dropped. ``path`` is a file or folder in
    the run directory, ``key`` the digest of the inputs; ``warn`` hears what is there instead.
    """
    found = artifacts.inputs_of(path)
    damaged = manifest.changed(folder, path.relative_to(folder).as_posix()) if found == key else []
    if found == key and path.is_dir() and not damaged:  # its weights may never have been recorded
        try:
            sound(path)
        except InputError:
            damaged = [path]
    if found not in (None, key):
        warn(f"{path} was made with other settings or data: making it again.")
    elif path.exists() and (damaged or found is None):
        warn(REMADE.format((damaged or [path])[0]))
    if found != key or damaged:
        return False
    drop_checkpoint(path)
    return True


def has_mask(folder: Path, by_side: bool, warn: Callable[[str], None]) -> bool:
    """Tell whether all that belongs to a mask is there as it was written; warn of what is not."""
    files = [folder / name for name in (manifest.MASKS if by_side else manifest.MASKS[:1])]
    files = [file for file in files if artifacts.inputs_of(file) is None]
    files += [f for f in manifest.changed(folder, *manifest.MASKS, LOCALIZATION) if f not in files]
    try:
        read_json(folder / LOCALIZATION)
    except (OSError, ValueError):
        files.append(folder / LOCALIZATION)
    for file in dict.fromkeys(file for file in files if file.exists()):
        warn(REMADE.format(file))
    return not files


def has_looks(folder: Path, every: int | None, warn: Callable[[str], None]) -> bool:
    """Tell whether what was seen of the training is there as it was written, if it was looked at.

    The results repeat from it what can be guessed: without it the training is made again.
    """
    path = folder / manifest.LOOKS
    try:
        if every is None or not (folder / "unlearned").exists():
            return True
        if read_json(path) and not manifest.changed(folder, manifest.LOOKS):
            return True
    except (OSError, ValueError):
        pass
    if path.exists():
        warn(REMADE.format(path))
    outdate(folder)
    return False


def drop_mask(folder: Path) -> None:
    """Drop a mask with its side files and the results; first the file that vouches for it."""
    for name in (*manifest.MASKS, LOCALIZATION):
        (folder / name).unlink(missing_ok=True)
    manifest.drop(folder, *manifest.MASKS, LOCALIZATION)
    outdate(folder)


def checkpoint_of(model: Path) -> Path:
    """Return where the training that makes ``model`` keeps its state."""
    return model.with_name(f"{model.name}.checkpoint")


def log_of(model: Path) -> Path:
    """Return the log of the training that makes ``model``."""
    return model.with_name(
        "train.jsonl" if model.name == "unlearned" else f"{model.name}.train.jsonl"
    )


def drop_checkpoint(model: Path) -> None:
    """Drop the state of a training that is finished, perhaps by a process killed right after it."""
    folder, log = checkpoint_of(model), log_of(model)
    for name in (folder.name, f"{folder.name}.old", f"{folder.name}.partial"):
        shutil.rmtree(folder.with_name(name), ignore_errors=True)
    log.with_name(log.name + PARTIAL).unlink(missing_ok=True)


def drop_training(model: Path) -> None:
    """Drop what tells of a training: the model that lies there now was never trained here."""
    log_of(model).unlink(missing_ok=True)
    drop_checkpoint(model)


def stamp(folder: Path) -> dict[str, Any]:
    """Return what a model's folder says about how it was made; InputError if that is not whole."""
    try:
        found = read_json(folder / artifacts.STAMP)
        if isinstance(found["weights"], str):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(
        f"{folder} is damaged: its {artifacts.STAMP}, which says how it was made, is missing or no "
        "longer whole. Delete the folder and run again."
    )


def weights_digest(folder: Path) -> str:
    """Return a digest of the weights in a model's folder, as its stamp carries it."""
    return digest([file_digest(file) for file in sorted(folder.glob("*.safetensors"))])


def sound(folder: Path) -> dict[str, Any]:
    """Return the stamp of a model's folder; InputError if its weights are not as written."""
    found = stamp(folder)
    gone = [name for name in found.get("files", ()) if not (folder / name).is_file()]
    if gone or weights_digest(folder) != found["weights"]:
        what = f"{gone[0]} is gone" if gone else "its weights are not those it was made with"
        raise InputError(f"{folder} is damaged: {what}. Delete the folder and run again.")
    return found


def both(run: Path) -> dict[str, dict[str, Any]]:
    """Return the stamps of both models of a run; if one is not sound, the results are dropped."""
    try:
        return {name: sound(run / name) for name in ("vanilla", "unlearned")}
    except InputError:
        outdate(run)  # who reads results must be able to trust them
        raise
