"""Take the unlearned model away: a plain Hugging Face folder that needs no grail and no path.

A form is a function that fills the folder from a run and returns what the card says of it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from grail.artifacts import STAMP
from grail.errors import InputError
from grail.files import replacing_folder, write_text
from grail.handover.card import model_card
from grail.handover.copies import note_copy
from grail.handover.delta import DELTA, write_delta
from grail.handover.opened import check_empty, check_start, open_run
from grail.handover.origin import Base, base_of
from grail.model.forward import Policy
from grail.model.load import load_model
from grail.model.probe import logits_of, short_row
from grail.model.save import load_weights
from grail.model.sources import ADAPTER, weight_files
from grail.run import directory, lock
from grail.run.context import RunContext


def export(folder: Path, form: str, output: Path) -> dict[str, Any]:
    """Write a finished run's unlearned model into a folder of its own, new or empty.

    ``form`` is "merge" (a complete model), "adapter" (as the run has it) or "delta" (the difference
    from the model before). Return {"output", "form", "remarks": sentences, "files": name ->
    SHA-256}.

    Raises:
        InputError: if the run has no such form, or ``output`` is not empty.
    """
    check_empty(output)
    context = open_run(folder, "unlearned", *(["vanilla"] if form == "delta" else []))
    if (folder / "unlearned" / ADAPTER).is_file():
        check_start(folder, context)
    elif form == "adapter":
        raise InputError(
            f"{folder} trained all weights and has no adapter. Use --merge, or --delta."
        )
    base = base_of(context.config.model.name)
    with lock.alone(folder, private=False), replacing_folder(output) as partial:
        remarks = FORMS[form](folder, context, base, partial)
        write_text(partial / "README.md", model_card(folder, form, base, remarks))
    files = note_copy(folder, form, output)
    return {"output": str(output), "form": form, "remarks": remarks, "files": files}


def _adapter(folder: Path, context: RunContext, base: Base, output: Path) -> list[str]:
    """Copy the adapter; its settings name the base without a path of this machine."""
    del context
    _copy(folder / "unlearned", output)
    file = output / ADAPTER
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = base.name
    file.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
    _generation_settings(base.place, output)
    return [f"The base model is {base.name}. {base.how}"]


def _merge(folder: Path, context: RunContext, base: Base, output: Path) -> list[str]:
    """Write a complete model: the run's own, or base and adapter as one in the base's type."""
    if not (folder / "unlearned" / ADAPTER).is_file():
        _copy(folder / "unlearned", output)
        return ["All weights were trained: these are the run's, to the bit."]
    measured = context.config.model.quantise
    own = {"dtype": "float32", "attention": "eager", "quantise": None}
    settings = context.config.model.model_copy(update=own)
    exact = RunContext(
        *(context.config.model_copy(update={"model": settings}), context.inputs, context.listener),
        context.device,
    )
    load_weights(exact.model, folder / "unlearned")
    row = short_row(exact.model)
    remarks = [] if measured is None else [_on_few_bits(context, folder, exact.model, row)]
    before = logits_of(exact.model, row).cpu()
    del exact
    one = settings.model_copy(update={"lora": None})
    merged: Any = load_model(one, str(folder / "unlearned"), seed=0)
    kind = _type_of(base.place)
    merged.to(kind).save_pretrained(output)
    del merged
    _copy(folder / "unlearned", output, weights=False)
    return [*remarks, _rounding(output, str(kind).removeprefix("torch."), row, before)]


def _on_few_bits(context: RunContext, folder: Path, full: Policy, row: torch.Tensor) -> str:
    """Say that the figures are those of a base in few bits, and how far the full one is from it."""
    load_weights(context.model, folder / "unlearned")
    here, there = logits_of(context.model, row).cpu(), logits_of(full, row).cpu()
    change, spread = float((here - there).abs().max()), float(there.max() - there.min())
    return (
        f"The run trained and measured this adapter on the base in {context.config.model.quantise} "
        "(model.quantise); it is merged into the base in full. On a probe of "
        f"{len(row)} tokens the logits of the two differ by at most {change:.1e}, of a span of "
        f"{spread:.3g}: the figures below are those of the first. To measure the second, run the "
        "same settings with model.quantise: null."
    )


def _rounding(output: Path, kind: str, row: torch.Tensor, before: torch.Tensor) -> str:
    """Say what the written model answers otherwise than base and adapter in float32."""
    from transformers import AutoModelForCausalLM

    after = logits_of(AutoModelForCausalLM.from_pretrained(output, dtype="auto"), row)
    most, spread = float((after - before).abs().max()), float(before.max() - before.min())
    return (
        f"Base and adapter are merged and written in {kind}, the type of the base. On a probe of "
        f"{len(row)} tokens its logits differ by at most {most:.1e} from those of base and adapter "
        f"in float32, which span {spread:.3g}."
    )


def _delta(folder: Path, context: RunContext, base: Base, output: Path) -> list[str]:
    """Write what turns the model before into the one after."""
    del context, base
    before, after = folder / "vanilla", folder / "unlearned"
    _copy(after, output, weights=False)
    found = write_delta(before, after, output / DELTA)
    return [
        f"{found['changed']:,} of {found['entries']:,} entries changed.",
        "Beside the result this difference gives back the model before, which knows what was "
        "removed: give it only to those who hold that model.",
        f"Digest of the weights before {directory.weights_digest(before)}, after "
        f"{directory.weights_digest(after)}.",
    ]


FORMS: dict[str, Callable[[Path, RunContext, Base, Path], list[str]]] = {
    "merge": _merge,
    "adapter": _adapter,
    "delta": _delta,
}
"""Name of a form -> what fills the folder."""


def _copy(model: Path, output: Path, weights: bool = True) -> None:
    """Copy a model's folder but for grail's own file, or what is neither weights nor adapter."""
    left_out = {STAMP, *(() if weights else (ADAPTER, *(f.name for f in weight_files(model))))}
    for file in model.iterdir():
        if file.name in left_out:
            continue
        copy = shutil.copytree if file.is_dir() else shutil.copyfile
        if not (output / file.name).exists():
            copy(file, output / file.name)


def _generation_settings(base: str, output: Path) -> None:
    """Write the generation settings of the base beside its adapter."""
    from transformers import AutoConfig, GenerationConfig

    try:
        settings = GenerationConfig.from_pretrained(base)
    except OSError:  # the base has no such file: what transformers then takes
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base))
    settings.save_pretrained(output)


def _type_of(base: str) -> torch.dtype:
    """Return the type that a model's configuration gives, which most weights are stored in."""
    from transformers import AutoConfig

    kind = AutoConfig.from_pretrained(base).dtype
    return kind if isinstance(kind, torch.dtype) else torch.float32


def push(output: Path, repository: str) -> str:
    """Upload a folder to a private repository of the Hub, unless it refuses; return its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_hub(repository)
    client = HfApi()
    try:
        client.create_repo(repository, private=True, exist_ok=True)
        client.upload_folder(repo_id=repository, folder_path=output)
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--push-to-hub: {output} is written, but the Hub did not take it ({reason}). Try "
            f"again: hf upload {repository} {output}"
        ) from error
    return f"{client.endpoint}/{repository}"


def check_hub(repository: str) -> None:
    """Refuse an upload that cannot succeed: to a name that is none, offline, or without a token."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"--push-to-hub: {error} Give OWNER/NAME.") from error
    if constants.HF_HUB_OFFLINE:
        raise InputError("--push-to-hub: HF_HUB_OFFLINE is set. Unset it, or leave this out.")
    if get_token() is None:
        raise InputError("--push-to-hub: nobody is logged in. Log in first: hf auth login")
