"""The store of cells: ``.cells/DIGEST`` in the base's folder, for all comparisons on that base.

A cell is a run directory named by the digest of everything that decides its results, and is found
again by it. Files that it shares with the base are hard links: a run replaces every file as a whole
and never writes into one.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from grail import __version__
from grail.artifacts import inputs_of
from grail.comparison.processes import Job, ProcessResult
from grail.comparison.rows import uncalibrated
from grail.config import file as config_file
from grail.config.merge import difference
from grail.config.run import Config
from grail.errors import InputError
from grail.files import digest, file_digest, read_json, replacing_file, replacing_folder, write_json
from grail.run import directory, lock, manifest
from grail.run.inputs import own_code
from grail.run.provenance import model_identity

RECORD = "cell.json"
"""Says that a cell is finished, and what it cost."""

_COPY = ".copy"
"""Marks a folder that stands in for a link to a cell."""

_VANILLA = ("model", "domains", "data", "teach")
"""Sections that the vanilla model depends on."""

_MEASURED = ("vanilla", "general.vanilla", "neighbours")
_VANILLA_FILES = ("vanilla/*", *(f"evaluation/{name}.json" for name in _MEASURED))


class Store:
    """The cells that start from one base; InputError if its vanilla model is not whole."""

    def __init__(self, base: Config) -> None:
        self.base = base
        self.vanilla = digest(directory.stamp(Path(base.output) / "vanilla"))

    def folder(self, config: Config) -> Path:
        """Return the folder of the cell with these settings, made or not."""
        return Path(self.base.output, ".cells", digest([config_digest(config), self.vanilla])[:16])

    def is_finished(self, config: Config) -> bool:
        """Tell whether the cell has its results, unchanged since, and all that a run leaves.

        A cell that has lost a file, the weights of its model for example, makes that one again.
        """
        folder = self.folder(config)
        record, results = record_of(folder / RECORD), folder / "results.json"
        if is_changed(folder, *manifest.REPORTED, *manifest.MEASURED) or lost(folder):
            return False
        if record.get("cell") != folder.name or not (folder / "samples.jsonl").exists():
            return False
        return results.exists() and record["results"] == file_digest(results)

    def prepare(self, config: Config) -> Job:
        """Link what is already made into the cell's folder; return the command that runs it.

        A calibrated cell starts from the one without calibration, if that is finished. InputError
        if another process is at work in the cell.
        """
        folder, base = self.folder(config), Path(self.base.output)
        start = uncalibrated(config)
        with lock.alone(folder):
            if start != config and self.is_finished(start):
                _link_missing(self.folder(start), folder, "**/*")
            _link_missing(base, folder, "config.yaml")  # marks the folder as a run's
            if shares_vanilla(config, self.base):
                _link_missing(base, folder, *_VANILLA_FILES)
            if shares_scores(config, self.base):
                _link_missing(base, folder, "scores/*.safetensors")
            settings = config.model_copy(update={"output": str(folder)})
            config_file.write(folder / "cell.yaml", settings, {})
        return Job(("run", str(folder / "cell.yaml")), folder / "log")

    def finish(self, config: Config, result: ProcessResult, resumed: bool) -> None:
        """Record that a cell is finished and its cost, that of its start included."""
        folder, seconds, peak_bytes = self.folder(config), result.seconds, result.peak_bytes
        before = record_of(folder / RECORD)  # linked from the cell it started from
        if before.get("cell") not in (None, folder.name):
            seconds += before["seconds"]
            peak_bytes = max(peak_bytes, before["peak_bytes"])
            resumed = resumed or before["resumed"]
        record = {"cell": folder.name, "results": file_digest(folder / "results.json")}
        measured = {"seconds": seconds, "peak_bytes": peak_bytes, "resumed": resumed}
        write_json(folder / RECORD, record | measured)


def link_cell(link: Path, home: Path) -> None:
    """Make ``link`` (METHOD/SEED) a relative link to a cell, or a copy where links are impossible.

    Anything else that is there, such as a cell of an earlier version, is refused.
    """
    if link.is_symlink():
        link.unlink()
    elif link.exists() and not (link / _COPY).exists():
        raise InputError(
            f"output: {link} is not a link to a cell: an earlier version of grail, or somebody "
            "else, put it there. Choose another --output, or move it away."
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(os.path.relpath(home.resolve(), link.parent.resolve()))
    except OSError:
        with replacing_folder(link) as partial:
            _link_missing(home, partial, "**/*")
            (partial / _COPY).touch()


def comparable_settings(config: Config) -> dict[str, Any]:
    """Return all settings of a run except the folder it is written to."""
    return config.model_dump(mode="json", exclude={"output", "made_with"})


def config_digest(config: Config) -> str:
    """Return a digest of the settings, the data files, the base model and the version of grail.

    Data count by their contents, wherever they are; a preset by the settings it stands for. An
    audit comes after the run and changes nothing.
    """
    settings = comparable_settings(config)
    del settings["preset"], settings["audit"]
    adapter = (settings["teach"] or {}).pop("adapter", None)  # counts by its contents too
    identity = model_identity(config.model.name, adapter)
    settings["made_with"] = [__version__, identity, adapter is not None, own_code(config)]
    for sides in settings["domains"].values():
        for parts in sides.values():
            parts.update({name: _contents(source) for name, source in parts.items()})
    for measured in settings["check"].values():
        measured["rows"] = _contents(measured["rows"])
    tasks = settings["evaluation"]["general_tasks"]
    settings["evaluation"]["general_tasks"] = [_contents(task) for task in tasks]
    settings["general"]["train"] = _contents(settings["general"]["train"])
    return digest(settings)


def overrides(config: Config, base: Config) -> dict[str, Any]:
    """Return dotted key -> value of every setting that differs from the base's."""
    return difference(comparable_settings(config), comparable_settings(base))


def shares_vanilla(config: Config, base: Config) -> bool:
    """Tell whether a cell starts from the base's vanilla model."""
    return _same(config, base, _VANILLA)


def shares_scores(config: Config, base: Config) -> bool:
    """Tell whether a cell starts from the base's scores too."""
    return _same(config, base, (*_VANILLA, "importance"))


def base_record(base: Config) -> dict[str, Any]:
    """Return what tells one made base from another: its digest, and those of its stages' inputs."""
    folder = Path(base.output)
    stages = (folder / "vanilla", *sorted((folder / "scores").glob("*.safetensors")))
    inputs = {stage.name: inputs_of(stage) for stage in stages}
    inputs["evaluation"] = record_of(folder / "evaluation" / "vanilla.json").get("inputs")
    has_config = (folder / "config.yaml").exists()
    return {"config_digest": config_digest(base), "inputs": inputs, "config.yaml": has_config}


def record_of(file: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file holds; empty if it is missing or not as written."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}


def is_changed(folder: Path, *names: str) -> bool:
    """Tell whether a file of a run directory is not as it was written, or the manifest is not."""
    try:
        return bool(manifest.changed(folder, *names))
    except InputError:
        return True


def lost(folder: Path) -> list[Path]:
    """Return the files of a cell's run that are gone; none where its manifest is damaged."""
    try:
        gone = manifest.missing(folder)
    except InputError:
        return []
    return [path for path in gone if path.relative_to(folder).parts[0] not in manifest.AUDIT]


def _contents(source: str | None) -> str | None:
    """Return the digest of a file or folder; any other text as it is."""
    return file_digest(Path(source)) if source and Path(source).exists() else source


def _same(config: Config, base: Config, sections: tuple[str, ...]) -> bool:
    one, other = comparable_settings(config), comparable_settings(base)
    for settings in (one, other):
        for sides in settings["domains"].values():
            sides["unlearn"].pop("heldout")  # measured, never trained on
    return all(one[name] == other[name] for name in sections)


def _link_missing(source: Path, folder: Path, *patterns: str) -> None:
    """Link the files of ``source`` that ``folder`` lacks; copy where hard links are impossible."""
    for file in (file for pattern in patterns for file in sorted(source.glob(pattern))):
        target = folder / file.relative_to(source)
        if target.exists() or not file.is_file() or file.name == ".lock":
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except OSError:
            with replacing_file(target) as partial:
                shutil.copy2(file, partial)
