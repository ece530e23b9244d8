"""The files between stages: Scores, Mask, and the stamp of how a folder was made.

Safetensors and JSON only. Each file carries the digest of its inputs, which tells a stage whether
the file is still the one that the settings ask for, and that of its own content. Also the names of
parameters (``block_of``).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from grail.errors import InputError
from grail.files import CHANGED, SEAL, read_json, replacing_file

STATISTICS = ("mean_abs", "mean", "mean_sq")
STAMP = "stage.json"
_UNSEALED = "0" * 64  # stands for the seal in the text that it is the SHA-256 of

_BLOCK = re.compile(
    r"(?:(?:base_model|model|transformer|gpt_neox)\.)*(.*?\b(?:layers?|h|blocks?)\.\d+)\."
)


def block_of(name: str) -> str | None:
    """Return the transformer block that a parameter is in, or None outside all blocks.

    ``model.layers.3.mlp.up_proj.weight`` is in "layers.3", ``model.vision.layers.3.mlp.weight`` in
    "vision.layers.3": two stacks of one model have different blocks. Words that only wrap a whole
    model (``base_model``, ``model``, ``transformer``, ``gpt_neox``) are left out.
    """
    match = _BLOCK.match(name)
    return match[1] if match else None


@dataclass(frozen=True)
class Scores:
    """Importance of every trainable entry for one side of one domain.

    Each statistic maps a parameter's name to a float32 tensor of the parameter's shape, in nats per
    unit of the parameter: the mean over ``samples`` of |g_i|, g_i and g_i squared, where g_i is the
    trial-averaged gradient of sample i's mean token NLL (paper, Eq. 3).
    """

    mean_abs: Mapping[str, Float[Tensor, "..."]]
    mean: Mapping[str, Float[Tensor, "..."]]
    mean_sq: Mapping[str, Float[Tensor, "..."]]
    samples: int

    def __repr__(self) -> str:
        """Show sizes instead of numbers."""
        entries = sum(tensor.numel() for tensor in self.mean_abs.values())
        tensors = len(self.mean_abs)
        return f"Scores({entries:,} entries in {tensors} tensors, {self.samples} samples)"


@dataclass(frozen=True)
class Mask:
    """The entries that must not move: parameter name -> bool tensor of its shape.

    Attributes:
        frozen: True where the entry is frozen for both sides.
        unlearn: True where unlearn gradients are zeroed; None: where ``frozen`` is True.
        retain: The same for retain gradients (``localization.freeze: by_side``).
        about: How the mask was made (localizer, k, counts), as JSON values.
    """

    frozen: dict[str, Bool[Tensor, "..."]]
    unlearn: dict[str, Bool[Tensor, "..."]] | None = None
    retain: dict[str, Bool[Tensor, "..."]] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def for_side(self, side: str) -> dict[str, Bool[Tensor, "..."]]:
        """Return the entries at which gradients of this side are zeroed."""
        marks = {"unlearn": self.unlearn, "retain": self.retain}[side]
        return self.frozen if marks is None else marks

    @property
    def by_side(self) -> bool:
        """Whether the two sides skip different entries."""
        return self.unlearn is not None

    def __repr__(self) -> str:
        """Show the localizer and how many entries it freezes."""
        counts, name = self.counts(), self.about.get("localizer", "own")
        share = 100 * counts["frozen"] / max(1, counts["entries"])
        return f"Mask({name}: {counts['frozen']:,} of {counts['entries']:,} entries, {share:.1f} %)"

    def counts(self) -> dict[str, int]:
        """Return {"entries", "frozen"} over all parameters."""
        return {
            "entries": sum(bits.numel() for bits in self.frozen.values()),
            "frozen": sum(int(bits.sum()) for bits in self.frozen.values()),
        }


def write_scores(path: Path, scores: Scores, inputs: str) -> None:
    """Write ``scores/DOMAIN.SIDE.safetensors`` (NAME.mean_abs, NAME.mean, NAME.mean_sq)."""
    tensors = {
        f"{name}.{statistic}": value.float().contiguous()
        for statistic in STATISTICS
        for name, value in getattr(scores, statistic).items()
    }
    _write(path, tensors, {"inputs": inputs, "samples": str(scores.samples)})


def read_scores(path: Path) -> Scores:
    """Open a scores file, read tensor by tensor; InputError if it is missing, broken or another."""
    about = check(path)
    with safe_open(str(path), "pt") as file:
        keys = list(file.keys())
    parts = {s: [k.removesuffix(f".{s}") for k in keys if k.endswith(f".{s}")] for s in STATISTICS}
    if unknown := [key for key in keys if key.rpartition(".")[2] not in parts]:
        raise InputError(
            f"{path}: '{unknown[0]}' is not a score of grail. Run `grail score` again."
        )
    if len(set(map(frozenset, parts.values()))) != 1 or not about.get("samples", "").isdecimal():
        raise InputError(f"{path} is not a scores file of grail. Run `grail score` again.")
    found = {statistic: _OnDisk(path, statistic, own) for statistic, own in parts.items()}
    return Scores(**found, samples=int(about["samples"]))


class _OnDisk(Mapping[str, Tensor]):
    """One statistic of a scores file: parameter name -> tensor, read at every look-up."""

    def __init__(self, path: Path, statistic: str, names: list[str]) -> None:
        self.path, self.statistic, self.names = path, statistic, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Tensor:
        self.names[name]  # KeyError, as a dictionary's
        with safe_open(str(self.path), "pt") as file:
            return file.get_tensor(f"{name}.{self.statistic}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def write_mask(path: Path, mask: Mask, inputs: str) -> None:
    """Write ``mask.safetensors``, and one more file per side if the sides differ."""
    for side, bits in (("unlearn", mask.unlearn), ("retain", mask.retain)):
        if bits is not None:
            _write_bits(_side_file(path, side), bits, mask.about, inputs)
    _write_bits(path, mask.frozen, mask.about, inputs)  # last: if it exists, all are complete


def read_mask(path: Path) -> Mask:
    """Read a mask; InputError if a file is missing or broken."""
    frozen, about = _read_bits(path)
    if about.get("freeze") != "by_side":
        return Mask(frozen, about=about)
    unlearn, retain = (_read_bits(_side_file(path, side))[0] for side in ("unlearn", "retain"))
    return Mask(frozen, unlearn, retain, about)


def pack_bits(bits: Bool[Tensor, "..."]) -> Tensor:
    """Pack a boolean tensor in C order, eight entries a byte, the first in the lowest bit."""
    return torch.from_numpy(np.packbits(bits.flatten().cpu().numpy(), bitorder="little"))


def unpack_bits(packed: Tensor, shape: list[int]) -> Bool[Tensor, "..."]:
    """Undo ``pack_bits``; ValueError if ``packed`` does not fit ``shape``."""
    count = int(np.prod(shape, dtype=np.int64))
    if packed.dtype != torch.uint8 or packed.shape != (-(-count // 8),):
        raise ValueError(f"{packed.numel()} x {packed.dtype} cannot be the bits of {shape}")
    flat = np.unpackbits(packed.numpy(), count=count, bitorder="little")
    return torch.from_numpy(flat.astype(bool)).reshape(shape)


def inputs_of(path: Path) -> str | None:
    """Return the inputs digest of a safetensors file or a stamped folder; None if not whole."""
    try:
        return (read_json(path / STAMP) if path.is_dir() else check(path)).get("inputs")
    except (OSError, ValueError, InputError):
        return None


def check(path: Path) -> dict[str, str]:
    """Return a safetensors file's metadata; InputError if its content is not what was written."""
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
        if _content_digest(path, about.get(SEAL, "")) == about.get(SEAL):
            return about
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Run the stage that makes it first.") from error
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is damaged ({error}). Delete it and run its stage again."
        ) from error
    raise InputError(f"{CHANGED.format(path)}.")


def seal_of(path: Path) -> str:
    """Return the digest that a file carries of its own content, which is not read."""
    with safe_open(str(path), "pt") as file:
        return file.metadata()[SEAL]


def frozen_digest(weights: Mapping[str, Tensor], mask: Mask) -> str:
    """Return the SHA-256 of the bytes of all frozen entries, parameters sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(mask.frozen):
        bits = mask.frozen[name]
        sha.update(name.encode())
        sha.update(weights[name].detach().cpu()[bits].contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def changed_entries(before: Tensor, after: Tensor) -> Bool[Tensor, " n"]:
    """Return for each entry (flat) whether any of its bits differ; -0.0 differs from 0.0."""
    pair = [x.detach().cpu().contiguous().flatten().view(torch.uint8) for x in (before, after)]
    size = before.element_size()
    return (pair[0] != pair[1]).reshape(-1, size).any(dim=1)


def _side_file(path: Path, side: str) -> Path:
    return path.with_name(f"{path.stem}.{side}{path.suffix}")


def _write_bits(path: Path, bits: dict[str, Tensor], about: dict[str, Any], inputs: str) -> None:
    shapes = {name: list(value.shape) for name, value in bits.items()}
    texts = {key: json.dumps(value, sort_keys=True) for key, value in about.items()}
    _write(
        path,
        {name: pack_bits(value) for name, value in bits.items()},
        {**texts, "shape": json.dumps(shapes, sort_keys=True), "inputs": inputs},
    )


def _read_bits(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    packed, texts = _read(path)
    try:
        shapes = json.loads(texts["shape"])
        about = {k: json.loads(v) for k, v in texts.items() if k not in ("shape", "inputs", SEAL)}
        if set(shapes) != set(packed):
            raise ValueError("shapes and bits name different parameters")
        return {name: unpack_bits(packed[name], shapes[name]) for name in packed}, about
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a mask of grail. Run `grail localize` again.") from error


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    ordered = dict(sorted(tensors.items()))
    write_sealed(path, lambda file, texts: save_file(ordered, file, texts), metadata)


def write_sealed(
    path: Path, write: Callable[[Path, dict[str, str]], None], metadata: dict[str, str]
) -> None:
    """Let ``write`` write a safetensors file with the metadata that it is given; then seal it."""
    with replacing_file(path) as partial:
        write(partial, {**metadata, SEAL: _UNSEALED})
        _finish_header(partial, _UNSEALED)
        _finish_header(partial, _content_digest(partial, _UNSEALED))


def _content_digest(path: Path, seal: str) -> str:
    """Return the SHA-256 of a safetensors file, the seal in its header replaced by zeros."""
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        sha = hashlib.sha256(length + header.replace(seal.encode(), _UNSEALED.encode(), 1))
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _finish_header(path: Path, seal: str) -> None:
    """Put the seal in and sort the metadata, which safetensors writes in random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted((header["__metadata__"] | {SEAL: seal}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise RuntimeError(f"sorting the header of {path} made it longer")
        file.seek(8)
        file.write(text.ljust(length))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    about = check(path)
    with safe_open(str(path), "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
