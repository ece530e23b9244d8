"""A finished run as it is handed over: its models and how to load them, without its data files."""

from pathlib import Path

import torch

from grail.config import file as config_file
from grail.errors import InputError
from grail.progress import NullListener
from grail.run import directory, manifest, refusals
from grail.run.context import RunContext
from grail.run.inputs import Inputs


def open_run(folder: Path, *models: str) -> RunContext:
    """Return what the models of a run are loaded with; its rows are not read.

    ``models`` are those whose weights are needed: "vanilla", "unlearned" (of a finished run).

    Raises:
        InputError: if the run is not that far, such a model was purged, or its files or the
            settings are no longer those that were written.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is not a run directory. Give the folder of a finished run.")
    if "unlearned" in models and not (folder / "results.json").is_file():
        raise InputError(f"{folder} is not finished. Finish it: grail run {folder}")
    if "vanilla" in models:
        refusals.refuse_purged(folder)
    for name in models:
        directory.sound(folder / name)
    files = [file for name in models for file in manifest.files_of(folder, name)]
    beside = [file for file in files if not file.endswith(".safetensors")]  # those are sound
    manifest.require(folder, "config.yaml", *beside)
    gpu = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if gpu else None
    nothing, config = Inputs((), (), (), {}), config_file.load_config(folder)
    return RunContext(config, nothing, NullListener(), device or torch.device("cpu"))


def check_start(folder: Path, context: RunContext) -> None:
    """Refuse a run whose model in the settings is no longer the one that it started from."""
    made_with = config_file.read(folder)[1].get("made_with") or {}
    if made_with.get("model") not in (None, context.start):
        raise InputError(
            f"{folder}: model.name, {context.config.model.name}, holds another model than when the "
            "run was made. Restore it, or run again."
        )


def check_empty(output: Path) -> None:
    """Refuse to write over something that is there: a file, or a folder that is not empty."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise InputError(f"--output: {output} exists already. Choose a new or empty folder.")
