"""The mask of another run, taken as it is (``localization.from``)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from grail import artifacts
from grail.artifacts import Mask
from grail.config.file import run_settings
from grail.errors import InputError

FROM = "localization.from"
_FILE = "mask.safetensors"


def reused(run: str) -> Callable[[Any], Mask]:
    """Return the localizer that gives the mask of a run, with a note of where it comes from."""

    def take(evidence: Any) -> Mask:
        del evidence
        mask = artifacts.read_mask(Path(run) / _FILE)
        origin = {"run": Path(run).name, "mask": seal_of_mask(run)}
        return replace(mask, about=mask.about | {"from": origin})

    return take


def seal_of_mask(run: str) -> str:
    """Return the digest that the mask of a run carries; InputError if it has none."""
    artifacts.check(Path(run) / _FILE)
    return artifacts.seal_of(Path(run) / _FILE)


def check_folder(run: str) -> None:
    """Refuse a folder that is no run with a mask."""
    if "made_with" not in run_settings(Path(run)) or not (Path(run) / _FILE).is_file():
        raise InputError(
            f"{FROM}: {run} is no directory of a run that has made its mask. Give one that has."
        )


def check_fit(run: str, start: str, shapes: Mapping[str, Any]) -> None:
    """Refuse the mask of a run of another model, or of other entries.

    ``start`` is the identity of the model that this run starts from, ``shapes`` are those of the
    tensors that it trains, by name.
    """
    check_folder(run)
    if (run_settings(Path(run))["made_with"] or {}).get("model") != start:
        raise InputError(
            f"{FROM}: {run} is a run of another model. A mask fits its own model only."
        )
    own = {name: tuple(bits.shape) for name, bits in reused(run)(None).frozen.items()}
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    if differing := sorted({name for name, _ in own.items() ^ wanted.items()}):
        raise InputError(
            f"{FROM}: the mask of {run} is about other entries than those that are trained here: "
            f"{len(differing)} tensors differ (first: {differing[0]}). Use the same model.lora."
        )
