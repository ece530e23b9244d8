"""The files of a finished run, opened to be recomputed: settings, rows, and what cannot be read."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grail.config import file as config_file
from grail.config.run import Config
from grail.config.values import EMBEDDED, HUB
from grail.data.samples import data_digest, load_general, load_samples, sources
from grail.errors import InputError, collecting
from grail.evaluation.general.items import load_tasks, task_digests
from grail.model.save import load_weights
from grail.model.sources import find
from grail.model.weights import copy_weights
from grail.progress import NullListener
from grail.run import manifest
from grail.run.context import RunContext
from grail.run.inputs import Inputs
from grail.run.provenance import software


@dataclass
class Opened:
    """A run directory and what its figures are recomputed with.

    Attributes:
        folder: The run directory.
        config: Its settings.
        made_with: What ``config.yaml`` says of versions, model and data.
        context: Tokenizer, model and rows, loaded when first needed.
        has_rows: Whether the data files are there.
        has_start: Whether the model that the run started from is there.
        broken: What is wrong with data files that are there; then they are not those of the run.
        purged: Date of each file that was deleted on purpose.
        remarks: What could not be checked, and why.
    """

    folder: Path
    config: Config
    made_with: dict[str, Any]
    context: RunContext
    has_rows: bool
    has_start: bool
    broken: list[str]
    purged: dict[str, str]
    remarks: list[str] = field(default_factory=list)

    @property
    def same_software(self) -> bool:
        """Whether the grail that made the run is this one, so that it writes the same words."""
        return {key: self.made_with.get(key) for key in software()} == software()

    def lacks(self, what: str, names: Iterable[str]) -> bool:
        """Tell whether a file that a check needs was purged, and remark that it was not made."""
        gone = [name for name in names if name in self.purged]
        if gone:
            when = self.purged[gone[0]]
            self.remarks.append(f"{what}: not recomputed, {gone[0]} was purged on {when}.")
        return bool(gone)

    def has_model(self, what: str, name: str) -> bool:
        """Tell whether a model's weights are there; remark that a check was not made if not."""
        prefix, found = f"{name}/", self.folder / name
        return not self.lacks(what, [n for n in self.purged if n.startswith(prefix)]) and (
            found.is_dir()
        )

    def weights(self, name: str) -> dict[str, Tensor]:
        """Return the trainable weights of a model on disk, on the CPU."""
        load_weights(self.context.model, self.folder / name)
        return {n: weight.cpu() for n, weight in copy_weights(self.context.model).items()}


def open_evidence(folder: Path) -> Opened:
    """Open the directory of a finished run; InputError for another, or unreadable settings."""
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is not a run directory. Give the folder of a finished run.")
    if not (folder / "results.json").is_file():
        raise InputError(f"{folder} is not finished. Finish it: grail run {folder}")
    made_with = config_file.read(folder)[1].get("made_with") or {}
    config = config_file.load_config(folder)
    inputs, problems = _rows(config)
    gone = [HUB, *(source for source in data_files(config) if not is_here(source))]
    lost = [text for text in problems if any(source in text for source in gone)]
    more = f" And {len(lost) - 1} more." if lost[1:] else ""
    remarks = [f"rows: not compared ({lost[0]}){more}"] if lost else []
    if not (has_start := _is_there(config)):
        remarks.append(f"model: not compared, {config.model.name} is not on this machine.")
    broken = [text for text in problems if text not in lost]
    context = RunContext(config, inputs, NullListener(silent=True), torch.device("cpu"))
    try:
        purged = manifest.purged(folder)
    except InputError:
        purged = {}  # the manifest is damaged, which its own check tells
    has_rows = bool(inputs.samples)
    return Opened(folder, config, made_with, context, has_rows, has_start, broken, purged, remarks)


def _rows(config: Config) -> tuple[Inputs, list[str]]:
    """Return the rows of a run and what is wrong with their files; then there are no rows.

    Nothing else is asked of this machine: it may be another one than that of the run.
    """
    problems, read = list[str](), list[Any]()
    for load in (load_samples, load_general, lambda c: load_tasks(c.evaluation.general_tasks)):
        with collecting(problems):
            read.append(load(config))
    if problems:
        return Inputs((), (), (), {}), problems
    samples, general, tasks = read
    digests = data_digest([*samples, *general]) | task_digests(tasks)
    return Inputs(tuple(samples), tuple(general), (), digests, tuple(tasks)), []


def _is_there(config: Config) -> bool:
    """Tell whether the files of the model that a run started from are on this machine."""
    try:
        places = [find(config.model.name).base, *([config.adapter] if config.adapter else [])]
    except InputError:
        return False
    return all(Path(place).exists() for place in places)


def data_files(config: Config) -> list[str]:
    """Return the data files of a run, those of its general tasks too, sorted."""
    tasks = [task for task in config.evaluation.general_tasks if Path(task).is_absolute()]
    files = {*sources(config), *tasks}
    return sorted(f for f in files if f != EMBEDDED and not f.startswith(HUB))


def is_here(source: str) -> bool:
    """Tell whether a data file exists; a sheet or a list in it (``FILE#KEY``) is not looked for."""
    return Path(source).exists() or Path(source.rpartition("#")[0] or source).exists()


def raw(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, whatever its own digest says."""
    return json.loads(path.read_text(encoding="utf-8"))
