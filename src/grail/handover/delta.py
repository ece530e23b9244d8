"""The exact difference of two models of one shape: before and delta give after, to the bit.

The weights are compared as bits. A tensor that did not change is left out; of another one the file
holds which entries changed (one bit each) and the XOR of these entries. So a difference is about as
large as the entries that moved, and frozen ones cost a bit.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from grail.artifacts import pack_bits, unpack_bits
from grail.errors import InputError

DELTA = "delta.safetensors"
"""Name of the file in an exported folder."""
_CHANGED, _BITS = "changed", "bits"
"""Ends of the names of a tensor's two parts."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of an entry -> the integers that its bits are read as."""


def write_delta(before: Path, after: Path, file: Path) -> dict[str, int]:
    """Write the difference between the weights of two model folders to a safetensors file.

    Return {"entries", "changed"}: how many there are, and how many of them differ. InputError if
    names, shapes or types of the tensors differ.
    """
    parts: dict[str, Tensor] = {}
    counts, none = {"entries": 0, "changed": 0}, ("", torch.empty(0))
    for (name, old), (other, new) in zip_longest(_tensors(before), _tensors(after), fillvalue=none):
        if (name, old.shape, old.dtype) != (other, new.shape, new.dtype):
            raise InputError(f"{before} and {after} are no models of one shape: {name or other}.")
        bits = _bits(old) ^ _bits(new)
        marks = bits != 0
        counts["entries"] += marks.numel()
        counts["changed"] += int(marks.sum())
        if marks.any():
            parts |= {f"{name}.{_CHANGED}": pack_bits(marks), f"{name}.{_BITS}": bits[marks]}
    save_file(parts, file, {"format": "pt"})
    return counts


def apply_delta(before: Path, delta: Path) -> dict[str, Tensor]:
    """Return the tensors of the model after: those in the folder ``before`` with the difference."""
    with safe_open(str(delta), "pt") as file:
        parts = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {name: _moved(name, old, parts) for name, old in _tensors(before)}


def _moved(name: str, old: Tensor, parts: dict[str, Tensor]) -> Tensor:
    if f"{name}.{_BITS}" not in parts:
        return old
    bits = _bits(old).clone()
    marks = unpack_bits(parts[f"{name}.{_CHANGED}"], [bits.numel()])
    bits[marks] ^= parts[f"{name}.{_BITS}"]
    return bits.view(old.dtype).reshape(old.shape)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(_INTEGERS[tensor.element_size()])


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), "pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)
