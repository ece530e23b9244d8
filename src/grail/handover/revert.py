"""The way back: the model before unlearning, bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from grail.files import replacing_folder
from grail.handover.copies import note_copy
from grail.handover.opened import check_empty, open_run
from grail.model.sources import files_read, find, weight_files
from grail.run import lock
from grail.run.context import RunContext


def revert(folder: Path, output: Path) -> dict[str, Any]:
    """Write the model before unlearning into a folder of its own, new or empty.

    A model that was taken as it is comes back in its own files, if they are still where they were
    and hold the values that the run kept; else the run's copy of it does. Return {"output", "from":
    the folder that the files come from, "files": name -> SHA-256}.

    Raises:
        InputError: if the model is gone or damaged, or ``output`` is not empty.
    """
    check_empty(output)
    context = open_run(folder, "vanilla")
    vanilla = folder / "vanilla"
    given = None if (folder / "vanilla.train.jsonl").exists() else _given(context)
    source = given if given is not None and _same_values(given, vanilla) else vanilla
    with lock.alone(folder), replacing_folder(output) as partial:
        for file in files_read(source):
            (partial / file.relative_to(source)).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, partial / file.relative_to(source))
    files = note_copy(folder, "before", output)
    return {"output": str(output), "from": str(source), "files": files}


def _given(context: RunContext) -> Path | None:
    """Return the folder of the model or adapter that the run was given, if it is one."""
    adapter = context.config.adapter
    found = find(context.config.model.name)
    place = Path(adapter) if adapter else found.adapter or Path(found.base)
    return place if place.is_dir() else None


def _same_values(given: Path, kept: Path) -> bool:
    """Tell whether a folder's tensors are those that a run kept, perhaps in a shorter type."""
    one, other = (
        [f for f in weight_files(place) if f.suffix != ".json"] for place in (given, kept)
    )
    if not one or any(file.suffix != ".safetensors" for file in one):
        return False
    tensors, wanted = ({n: v for f in fs for n, v in load_file(f).items()} for fs in (one, other))
    return tensors.keys() == wanted.keys() and all(
        torch.equal(value.to(wanted[name].dtype), wanted[name]) for name, value in tensors.items()
    )
