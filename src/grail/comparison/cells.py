"""The folders of cells: what they share with the base, and which of them are finished.

A cell is an ordinary run directory. Its vanilla model and scores are hard links to the base's:
every file of a run is replaced as a whole and never written into, so a link can do no harm.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from grail import __version__
from grail.artifacts import inputs_of
from grail.comparison.rows import Cell
from grail.config import file as config_file
from grail.config.merge import difference
from grail.config.run import Config
from grail.files import digest, file_digest, replacing_file, replacing_folder, write_json
from grail.run import directory
from grail.run.provenance import model_identity

VANILLA = ("model", "domains", "data", "vanilla")
"""Sections that the vanilla model depends on."""

RECORD = "cell.json"
LOG = "log"


def settings_of(config: Config) -> dict[str, Any]:
    """Return all settings of a run but the place it is written to."""
    return config.model_dump(mode="json", exclude={"output", "made_with"})


def config_digest(config: Config) -> str:
    """Return a digest of the settings, the data files, the base model and the version of grail.

    Contents count, not places and names: data that have been moved are the same data, and a preset
    is a name for settings that are all there. An audit comes after the run and changes nothing.
    """
    settings = settings_of(config)
    del settings["preset"], settings["audit"]
    settings["made_with"] = [__version__, model_identity(config.model.name)]
    for sides in settings["domains"].values():
        for parts in sides.values():
            parts.update({name: _contents(source) for name, source in parts.items()})
    tasks = settings["evaluation"]["general_tasks"]
    settings["evaluation"]["general_tasks"] = [_contents(task) for task in tasks]
    for section, key in (("general", "train"), ("vanilla", "adapter")):
        settings[section][key] = _contents(settings[section][key])
    return digest(settings)


def overrides(config: Config, base: Config) -> dict[str, Any]:
    """Return dotted key -> value of every setting that differs from the base's."""
    return difference(settings_of(config), settings_of(base))


def prepare_cell(cell: Cell, base: Config) -> Path:
    """Make the folder of a cell ready for `grail run`: links, settings; return the YAML file.

    What an earlier run of other settings has recorded and measured is dropped first: killed before
    it is recorded, this run would otherwise be taken for that one.
    """
    source, folder = Path(base.output), cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    directory.outdate(folder)
    if not (folder / "config.yaml").exists():  # says that this is a run, though of other settings
        _link(source / "config.yaml", folder / "config.yaml")
    if _same(cell.config, base, VANILLA):
        _share_vanilla(source, folder)
        if shares_scores(cell.config, base):
            _share_files(source / "scores", folder / "scores")
    file = folder / "cell.yaml"
    config_file.write(file, cell.config, {})
    return file


def shares_vanilla(config: Config, base: Config) -> bool:
    """Tell whether a cell starts from the base's vanilla model."""
    return _same(config, base, VANILLA)


def shares_scores(config: Config, base: Config) -> bool:
    """Tell whether a cell starts from the base's scores too."""
    return _same(config, base, (*VANILLA, "importance"))


def vanilla_stamp(base: Config) -> str:
    """Return what identifies the base's vanilla model, its data and the version that made it."""
    return digest(directory.stamp(Path(base.output) / "vanilla"))


def is_finished(cell: Cell, stamp: str) -> bool:
    """Tell whether a cell has results that are of these settings, data and vanilla model.

    They must be the recorded ones: a cell is a run, and may have been run by hand since.
    """
    found, results = read_record(cell.folder), cell.folder / "results.json"
    if not (results.exists() and (cell.folder / "samples.jsonl").exists()):
        return False
    wanted = {"config_digest": config_digest(cell.config), "vanilla": stamp}
    same = found.get("results") in (None, file_digest(results))  # None: an older record
    return same and wanted.items() <= found.items()


def was_begun(cell: Cell) -> bool:
    """Tell whether an earlier process has already done a part of a cell's Stage 3 or later."""
    names = ("unlearned", "unlearned.checkpoint", "train.jsonl", "train.jsonl.partial")
    return any((cell.folder / name).exists() for name in names)


def write_record(cell: Cell, stamp: str, measured: dict[str, Any]) -> None:
    """Say that a cell is finished, with what its process took."""
    about = {"config_digest": config_digest(cell.config), "vanilla": stamp}
    about["results"] = file_digest(cell.folder / "results.json")
    write_json(cell.folder / RECORD, about | measured)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``write_record`` wrote; empty if it is absent or damaged."""
    return read_json(folder / RECORD)


def announce(cell: Cell, base: Config) -> None:
    """Tell the comparisons that share the base that this cell is finished."""
    _announce(cell.folder, base, config_digest(cell.config))


def twin(cell: Cell, base: Config, stamp: str) -> Cell | None:
    """Return a finished cell of the same settings in any comparison that shares the base."""
    folder = read_json(_announced(base, config_digest(cell.config))).get("folder")
    other = None if folder is None else replace(cell, folder=Path(folder))
    return other if other is not None and is_finished(other, stamp) else None


def base_inputs(base: Config) -> dict[str, str] | None:
    """Return what each thing that cells share was made from; None if one of them is not there."""
    folder = Path(base.output)
    sides = (f"{domain}.{side}" for domain in base.domains for side in ("unlearn", "retain"))
    shared = ("vanilla", *(f"scores/{side}.safetensors" for side in sides))
    found = {name: inputs_of(folder / name) for name in shared}
    measured = read_json(folder / "evaluation" / "vanilla.json")
    found["evaluation"] = measured.get("inputs")
    whole = (folder / "config.yaml").exists() and None not in found.values()
    return {name: str(inputs) for name, inputs in found.items()} if whole else None


def read_json(file: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file holds; empty if it is absent or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def set_aside(cell: Cell, base: Config) -> Path | None:
    """Keep what an unfinished cell's folder holds if it is finished with other settings.

    Settings that are changed and changed back find it there. The folder itself stays, for what the
    new cell can use of it.

    Returns:
        Where it is kept, beside the cell's folder; None if nothing finished was there.
    """
    found = read_record(cell.folder)
    if "config_digest" not in found or not (cell.folder / "results.json").exists():
        return None
    name = digest([found["config_digest"], found.get("vanilla")])[:8]
    kept = cell.folder.with_name(f"{cell.folder.name}.{name}")
    if not kept.exists():
        with replacing_folder(kept) as partial:
            _link_all(cell.folder, partial, leave=(".lock",))
    _announce(kept, base, found["config_digest"])
    return kept


def adopt(candidate: Cell, cell: Cell) -> None:
    """Take over another finished cell as this one: a twin, or the candidate of the same point.

    Nothing is left to run, or the calibrated model alone, which no candidate has.
    """
    with replacing_folder(cell.folder) as partial:
        _link_all(candidate.folder, partial, leave=(".lock", "cell.yaml"))
    config_file.write(cell.folder / "cell.yaml", cell.config, {})


def _announce(folder: Path, base: Config, settings: str) -> None:
    write_json(_announced(base, settings), {"folder": str(folder.resolve())})


def _announced(base: Config, settings: str) -> Path:
    return Path(base.output) / directory.COMPARISON / "finished" / f"{settings}.json"


def _contents(source: str | None) -> str | None:
    """Return the digest of a file or folder; what is neither stands for itself."""
    return file_digest(Path(source)) if source and Path(source).exists() else source


def _same(config: Config, base: Config, sections: tuple[str, ...]) -> bool:
    one, other = settings_of(config), settings_of(base)
    for settings in (one, other):
        for sides in settings["domains"].values():
            sides["unlearn"].pop("heldout")  # measured, never trained on
    return all(one[name] == other[name] for name in sections)


def _share_vanilla(source: Path, folder: Path) -> None:
    own = folder / "vanilla"
    if inputs_of(own) is None or directory.stamp(own) != directory.stamp(source / "vanilla"):
        with replacing_folder(own) as partial:
            for file in (source / "vanilla").iterdir():
                _link(file, partial / file.name)
    _share_file(source / "evaluation" / "vanilla.json", folder / "evaluation" / "vanilla.json")
    ability = source / "evaluation" / "general.vanilla.json"
    if ability.exists():  # only where general tasks are asked
        _share_file(ability, folder / "evaluation" / ability.name)


def _share_files(source: Path, folder: Path) -> None:
    for file in source.glob("*.safetensors"):
        _share_file(file, folder / file.name)


def _share_file(source: Path, own: Path) -> None:
    if own.exists() and (own.samefile(source) or own.read_bytes() == source.read_bytes()):
        return
    with replacing_file(own) as partial:
        partial.unlink(missing_ok=True)
        _link(source, partial)


def _link_all(source: Path, target: Path, leave: tuple[str, ...]) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.name not in leave:
            _link(file, target / file.relative_to(source))


def _link(source: Path, target: Path) -> None:
    """Link ``source`` as ``target``; copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
