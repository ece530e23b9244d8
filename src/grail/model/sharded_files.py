"""Load a model in parts, one per process, and save it: no process ever holds the whole of it."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from grail.config.run import Model
from grail.errors import InputError
from grail.model import packing
from grail.model.complete import refuse_difference
from grail.model.forward import Policy, is_adapter
from grail.model.load import dtype_of, new_adapter
from grail.model.probe import refuse_looking_ahead
from grail.model.save import save_weights
from grail.model.sharded import part, read_part, shard, whole_of, write_tensors
from grail.model.sources import find, weight_files


def load_sharded(settings: Model, seed: int, device: torch.device) -> Policy:
    """Load a model in parts and put a new adapter on it, drawn by ``seed``, or free all weights.

    Parameters are made without values, and get them block by block just before a block is parted;
    this process's part lies on ``device``. InputError if the model cannot be loaded in parts.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    source = find(settings.name)
    if source.adapter is not None:
        raise InputError(
            "model.name: a PEFT adapter cannot be loaded in parts (FSDP2). Merge it into its base, "
            "or use one process."
        )
    place, attention = Path(source.unpacked()), settings.attention
    files = _places(place, settings.name)
    if attention == "auto":
        attention = "sdpa" if torch.cuda.is_available() else "packed"
    config: Any = AutoConfig.from_pretrained(place)
    config._attn_implementation = "eager" if attention == "packed" else attention
    with torch.random.fork_rng():
        with init_empty_weights(include_buffers=False):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype_of(settings))
        model.tie_weights()
        names = {id(p): name for name, p in model.named_parameters()}
        own, tied = set(names.values()), set(model.state_dict()) - set(names.values())
        missing, unused = own - files.keys(), files.keys() - own - tied
        refuse_difference(f"model.name: {settings.name}", missing, unused)
        policy: Any = model
        if settings.lora is not None:
            policy = _drawn(new_adapter(model, settings.lora, seed), seed)
    places = {key: (files[name], name) for key, name in names.items()}
    shard(policy, partial(_fill, places, settings.lora is None, device), device)
    refuse_looking_ahead(policy)
    if attention == "packed" and not packing.enable(policy) and settings.attention == "packed":
        raise InputError(f"model.attention: {settings.name} cannot read packed rows. Use auto.")
    return policy


def _drawn(policy: Any, seed: int) -> Any:
    """Draw a new adapter's values as PEFT does: on a base without values it has none either."""
    from peft.tuners.lora import LoraLayer

    torch.manual_seed(seed)
    for layer in policy.modules():
        if not isinstance(layer, LoraLayer):
            continue
        adapted: Any = layer
        for name in adapted.active_adapters:
            for half in (adapted.lora_A, adapted.lora_B):
                rows, columns = half[name].weight.shape
                half[name] = nn.Linear(columns, rows, bias=False)
            adapted.reset_lora_parameters(name, init_lora_weights=True)
    return policy


def _fill(
    places: Mapping[int, tuple[Path, str]], free: bool, device: torch.device, module: nn.Module
) -> None:
    """Give a module's parameters without values those of their files, whole."""
    made: dict[int, nn.Parameter] = {}  # a tied weight is met twice
    for each in module.modules():
        for key, parameter in list(each.named_parameters(recurse=False)):
            if parameter.device.type != "meta":
                continue
            if id(parameter) not in made:
                file, name = places[id(parameter)]
                value = read_part(file, name, parameter).to(device, parameter.dtype)
                made[id(parameter)] = nn.Parameter(value, requires_grad=free)
            setattr(each, key, made[id(parameter)])


def _places(place: Path, what: str) -> dict[str, Path]:
    """Return the name of every weight in a folder's safetensors files -> its file."""
    found: dict[str, Path] = {}
    for file in weight_files(place) if place.is_dir() else ():
        if file.suffix == ".safetensors":
            with safe_open(str(file), "pt") as opened:
                found |= dict.fromkeys(opened.keys(), file)
    if not found:
        raise InputError(
            f"model.name: {what} has no safetensors files in a folder here, which loading in parts "
            "(FSDP2) reads. Give a folder (for a Hub id: `hf download ID --local-dir DIR`)."
        )
    return found


def save_sharded(model: Policy, folder: Path | None) -> None:
    """Write a model in parts as ``save_weights`` writes a whole one; None: give the parts alone."""
    if is_adapter(model):
        names = dict(model.named_parameters())
        state = {n: whole_of(part(p).detach(), p) for n, p in names.items() if p.requires_grad}
        if folder is not None:
            save_weights(model, folder, state)
        return
    like = dict(model.named_parameters())
    own = {name: part(p) for name, p in sorted(like.items())}
    write_tensors(None if folder is None else folder / "model.safetensors", own, like)
    if folder is not None:
        inner: Any = model
        inner.config.save_pretrained(folder)
        if inner.can_generate():
            inner.generation_config.save_pretrained(folder)
        file = folder / "config.json"
        about = json.loads(file.read_text(encoding="utf-8"))
        about |= {"architectures": [type(inner).__name__.removeprefix("FSDP")]}
        file.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def load_parts(model: Policy, folder: Path) -> None:
    """Read what ``save_sharded`` or ``save_weights`` wrote into a model in parts."""
    adapter = is_adapter(model)
    file = folder / ("adapter_model.safetensors" if adapter else "model.safetensors")
    parameters: Mapping[str, Tensor] = dict(model.named_parameters())
    if adapter:
        parameters = {
            n.replace(".default.", "."): p for n, p in parameters.items() if p.requires_grad
        }
    places = _places(folder, str(folder)) if not adapter else dict.fromkeys(parameters, file)
    refuse_difference(str(folder), parameters.keys() - places.keys(), ())
    for name, parameter in parameters.items():
        part(parameter).copy_(read_part(places[name], name, parameter))
