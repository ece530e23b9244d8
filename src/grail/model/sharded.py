"""Models in parts, one per process (FSDP2): which part is where, and whole tensors when needed.

Everything that reads or writes entries one by one (masks, optimisers, sums) works on this process's
part, an ordinary tensor that shares its memory with the parameter. A whole tensor exists one at a
time. All processes must call these functions in the same order.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from grail.errors import InputError

_SAFETENSORS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in the header of a safetensors file."""


def is_sharded(model: nn.Module) -> bool:
    """Tell whether a model's parameters are in parts, one per process."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def shard(
    model: nn.Module,
    fill: Callable[[nn.Module], None] = lambda _: None,
    device: torch.device | str = "cpu",
) -> None:
    """Put a model's parameters in parts, in place: block by block, then what is outside of them.

    A block is whole while it computes, and in parts again after its forward and its backward pass.
    Gradients arrive as sums over the processes.

    Args:
        model: A transformers model, or a PEFT model around one, with the same values everywhere.
        fill: Called with each module before it is parted: gives parameters without values theirs,
            so that no process ever holds the whole model.
        device: Where the parts lie.

    Raises:
        InputError: if the model's blocks are not in a list of modules.
    """
    from torch.distributed.fsdp import fully_shard

    inner: Any = model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore
    if inner is not model:  # PEFT calls its model's forward() directly, where no hook sees it
        model.base_model.forward = lambda *args, **named: inner(*args, **named)  # type: ignore
    stacks = [m for m in inner.modules() if isinstance(m, nn.ModuleList)]
    blocks = list(max(stacks, key=_entries)) if stacks else []
    if not blocks:
        raise InputError(f"FSDP2: {type(inner).__name__} has no list of blocks to put in parts.")
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    for module in (*blocks, inner):
        fill(module)
        part: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        # divided by 1: a plain sum, which gloo has too (its PREMUL_SUM is missing)
        part.set_force_sum_reduction_for_comms(True)
        part.set_gradient_divide_factor(1.0)


def _entries(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def part(tensor: Tensor) -> Tensor:
    """Return this process's part of a parameter in parts, in shared memory; others as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_parts(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return this process's parts of parameters, as parameters in shared memory."""
    return {
        name: nn.Parameter(part(p.detach()), p.requires_grad) if isinstance(p, DTensor) else p
        for name, p in parameters.items()
    }


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor of the shape of the parameter ``like``."""
    if not isinstance(like, DTensor):
        return whole
    first, count = _span(like)
    return whole[first : first + count]


def _span(like: DTensor) -> tuple[int, int]:
    """Return the first row of this process's part, and how many rows it has."""
    rows, size = like.shape[0], -(-like.shape[0] // dist.get_world_size())
    first = min(rows, dist.get_rank() * size)
    return first, min(rows, first + size) - first


def whole_of(own: Tensor, like: Tensor) -> Tensor:
    """Return the whole tensor of which each process has a part like that of ``like``.

    A tensor of another shape than the part (a count of steps) is the same everywhere.
    """
    if not isinstance(like, DTensor) or own.shape != like.to_local().shape:
        return own
    size = -(-like.shape[0] // dist.get_world_size())
    device = like.to_local().device  # of the backend that sends: scores and copies are on the CPU
    padded = own.new_zeros((size, *own.shape[1:]), device=device)
    padded[: len(own)] = own.detach()
    out = padded.new_empty((size * dist.get_world_size(), *own.shape[1:]))
    dist.all_gather(list(out.split(size)), padded)
    return out[: like.shape[0]].to(own.device)


class Whole(Mapping[str, Tensor]):
    """Parts by name, each put together when it is read; the same order of reading everywhere."""

    def __init__(self, own: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
        self.own, self.like = own, like

    def __getitem__(self, name: str) -> Tensor:
        """Return a whole tensor."""
        return whole_of(self.own[name], self.like[name])

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self.own)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self.own)


def summed(value: float, sharded: bool) -> float:
    """Return the sum of a number over the processes, if parameters are in parts."""
    if not sharded:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    return float(_everywhere(total))


def _everywhere(total: Tensor) -> Tensor:
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    total = total.to(device)
    dist.all_reduce(total)
    return total.cpu()


def added_in_order(pieces: Tensor, own: Tensor, like: Tensor) -> None:
    """Add each process's whole ``pieces`` to the parts ``own``, process by process.

    The order of the additions is that of one process that does the work of all in turn, so that the
    sums are equal to the bit. ``pieces`` has the shape of ``like``, the parameter in parts.
    """
    count = dist.get_world_size()
    size = -(-like.shape[0] // count)
    padded = pieces.new_zeros((size * count, *pieces.shape[1:]))
    padded[: like.shape[0]] = pieces
    received = torch.empty_like(padded)
    dist.all_to_all_single(received, padded)
    for piece in received.split(size):
        own.add_(piece[: len(own)])


def write_tensors(
    path: Path | None,
    tensors: Mapping[str, Tensor],
    like: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write parts as a safetensors file of whole tensors, one in memory at a time.

    Without a ``path`` another process writes the file, and this one gives its parts: of each tensor
    its part, or one that is the same everywhere. ``like`` has the parameters in parts that they are
    like, by the same names; ``metadata`` are texts in the file's header.
    """
    names, offset = list(tensors), 0
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    for name in names:
        tensor = tensors[name]
        parted = isinstance(like[name], DTensor) and tensor.shape == part(like[name]).shape
        shape = list(like[name].shape if parted else tensor.shape)
        end = offset + torch.Size(shape).numel() * tensor.element_size()
        kind = _SAFETENSORS[tensor.dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    stream = path.open("wb") if path is not None else None
    try:
        if stream:
            stream.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            value = whole_of(tensors[name], like[name])
            if stream:
                flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                stream.write(flat.numpy().data)
    finally:
        if stream:
            stream.close()


def read_part(file: Path, name: str, like: Tensor) -> Tensor:
    """Return this process's part of a tensor in a safetensors file; no more of it is read."""
    with safe_open(str(file), "pt") as opened:
        if not isinstance(like, DTensor):
            return opened.get_tensor(name)
        rows = opened.get_slice(name)
        if list(rows.get_shape()) != list(like.shape):
            return opened.get_tensor(name)  # a count of steps, the same everywhere
        first, count = _span(like)
        if not count:  # more processes than rows
            return torch.empty_like(like.to_local())
        return rows[first : first + count]
