"""What is refused in a run directory, because something in it would be lost without a word."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from grail.artifacts import STAMP
from grail.config.file import COMPARISON, run_settings
from grail.config.run import Config
from grail.errors import InputError
from grail.run import manifest

_TRAINED = (".unlearn.train", ".retain.train")


def refuse_purged(folder: Path) -> None:
    """Refuse work in a run directory whose model before unlearning was purged; say when."""
    dates: list[str] = []
    with suppress(InputError):  # a damaged manifest is told by those who write to it
        found = manifest.purged(folder).items()
        dates = [day for name, day in found if name.startswith("vanilla/")]
    if dates:
        raise InputError(
            f"{folder} was purged on {dates[0]}: the model before unlearning is gone, on purpose. "
            "What is left can be read (grail report, grail ask, grail export). For another run "
            "choose another --output."
        )


def refuse_run(config: Config, source: Path | None) -> None:
    """Refuse a run in a purged folder, or in a comparison's folder.

    There a run loses nothing if it is that of the comparison's base. ``source`` is the file or
    folder that the settings come from, if they come from one.
    """
    folder = Path(config.output)
    refuse_purged(folder)
    own = source is not None and source.resolve().parent.name == COMPARISON
    if own or not (folder / COMPARISON).is_dir():
        return
    if _differs(folder, config):
        raise InputError(
            f"output: {folder} is a comparison's; a run there would replace the vanilla model and "
            "the scores that its cells share. Choose another --output, or the folder of one cell: "
            f"{folder / 'METHOD' / 'SEED'}."
        )


def refuse_comparison(folder: Path, base: Config) -> None:
    """Refuse a comparison in a folder that a run has filled, or one that shares such a folder.

    A run of the base's own settings may be shared: it loses nothing.
    """
    shared = Path(base.output)
    refuse_purged(shared)
    if (shared / "results.json").is_file() and shared != folder and _differs(shared, base):
        raise InputError(
            f"shared: {shared} has the results of a run of other settings, which the base would "
            "drop. Choose another folder."
        )
    if (folder / "config.yaml").is_file() and not (folder / COMPARISON).is_dir():
        raise InputError(
            f"output: {folder} is a run's; a comparison there would replace its models and drop "
            "its results. Choose another --output."
        )


def refuse_other(folder: Path, config: Config, about: dict[str, Any]) -> None:
    """Refuse to replace a result by that of another model, or of rows from other files.

    Rows that were edited in the same files replace it, as other settings of the same model do; but
    not what was attested. ``about`` is the ``made_with`` of the run to come.
    """
    if not (folder / "unlearned" / STAMP).is_file():
        return
    found = run_settings(folder)
    try:
        made, model, files = found["made_with"], found["model"]["name"], _trained(found)
        before, rows = made["model"], _digests(made)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"output: {folder} has a result, and its config.yaml does not say of which model and "
            "rows. Choose another --output, or delete that folder."
        ) from error
    others, new, there = _trained(config.model_dump(mode="json")), _digests(about), list[str]()
    same_files = files == others and not (folder / "attestation.json").exists()
    if before != about["model"]:
        there.append(f"another model ({model})")
    if rows != new and not same_files:
        there.append(f"other rows ({', '.join(sorted({*files} - {*others}) or files)})")
    if there:
        raise InputError(
            f"output: {folder} has the result of {' and of '.join(there)}, which this run would "
            "replace. Choose another --output, or delete that folder."
        )


def _trained(sections: dict[str, Any]) -> list[str]:
    """Return the files of train rows, sorted."""
    domains = sections["domains"].values()
    return sorted(rows[side]["train"] for rows in domains for side in ("unlearn", "retain"))


def _digests(made_with: dict[str, Any]) -> list[str]:
    """Return the digests of the train rows that a run was made with, sorted."""
    return sorted(sha for name, sha in made_with["data"].items() if name.endswith(_TRAINED))


def _differs(folder: Path, config: Config) -> bool:
    """Tell whether a folder's ``config.yaml`` says something else, versions and data apart."""
    found, wanted = run_settings(folder), config.model_dump(mode="json")
    return found | {"made_with": None} != wanted | {"made_with": None}
