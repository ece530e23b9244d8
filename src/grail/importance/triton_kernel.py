"""Sums over samples of |G_n|, G_n and G_n squared, where G_n is D_n^T X_n and is never written.

One Triton kernel for the weight of a linear layer. A program keeps a tile of the three sums in
registers and loops over all samples and their tokens, so that memory is read and written once per
batch, not once per sample. No two programs share an entry and each adds in the order of the
samples: equal input gives equal bits. The tests compare it with plain products in Triton's
interpreter (``TRITON_INTERPRET=1``), which needs no accelerator.
"""

import inspect
import os
from collections.abc import Sequence
from itertools import accumulate

import torch
import triton  # type: ignore
import triton.language as tl  # type: ignore
from jaxtyping import Float
from torch import Tensor

TILE, DEPTH = 64, 32
"""Entries of a tile along each side, and tokens that are loaded together.

Three sums and the sample's product are four tiles: 128 registers in each of 128 threads.
"""

GROUP = 8
"""Tiles in a column of tiles that run at about the same time and read the same inputs."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

PRECISIONS = {torch.float32} if INTERPRETED else {torch.float32, torch.bfloat16, torch.float16}
"""Precisions that the kernel multiplies directly, adding in float32; others become float32 first.

Triton 3.7's interpreter multiplies the bits of bfloat16 numbers as if they were integers.
"""


def add_products(
    inputs: Float[Tensor, "K I"],
    gradient: Float[Tensor, "K O"],
    lengths: Sequence[int],
    total_abs: Float[Tensor, "O I"],
    total: Float[Tensor, "O I"],
    total_sq: Float[Tensor, "O I"],
) -> None:
    """Add the gradients of a linear layer's weight, sample by sample, to three running sums.

    Args:
        inputs: The layer's input, sample after sample.
        gradient: The gradient of the loss with respect to its output, the same tokens.
        lengths: Tokens of each sample; they add up to K.
        total_abs: Running sum of absolute values, float32 and contiguous; changed in place.
        total: Running sum, likewise.
        total_sq: Running sum of squares, likewise.
    """
    assert sum(lengths) == len(inputs), "every token belongs to a sample"
    assert all(x.is_contiguous() for x in (total_abs, total, total_sq)), "flat offsets"
    direct = inputs.dtype == gradient.dtype and inputs.dtype in PRECISIONS
    x, d = (v.contiguous() if direct else v.float().contiguous() for v in (inputs, gradient))
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int64, device=x.device)
    height, width = total.shape
    tiles = triton.cdiv(height, TILE) * triton.cdiv(width, TILE)
    sizes = (len(lengths), height, width, TILE, DEPTH, GROUP)
    with torch.cuda.device_of(x):
        _kernel[(tiles,)](x, d, ends, total_abs, total, total_sq, *sizes)


def _tile(  # noqa: PLR0913  (a kernel takes pointers and sizes one by one)
    x_at,
    d_at,
    ends_at,
    abs_at,
    sum_at,
    square_at,
    samples,
    outputs,
    inputs,
    TILE: tl.constexpr,  # noqa: N803
    DEPTH: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
):
    """Add one tile; a program's number counts down a band of GROUP tiles, then to the right."""
    number = tl.program_id(0)
    band = GROUP * ((inputs + TILE - 1) // TILE)
    top = number // band * GROUP
    height = tl.minimum((outputs + TILE - 1) // TILE - top, GROUP)
    o = ((top + number % band % height) * TILE + tl.arange(0, TILE)).to(tl.int64)
    i = (number % band // height * TILE + tl.arange(0, TILE)).to(tl.int64)
    sum_abs = tl.full((TILE, TILE), 0.0, tl.float32)
    sum_plain = tl.full((TILE, TILE), 0.0, tl.float32)
    sum_square = tl.full((TILE, TILE), 0.0, tl.float32)
    start = tl.load(ends_at)
    for n in range(samples):
        stop = tl.load(ends_at + n + 1)
        product = tl.full((TILE, TILE), 0.0, tl.float32)
        for first in range(start, stop, DEPTH):
            t = first + tl.arange(0, DEPTH)
            d_in = (o[:, None] < outputs) & (t[None, :] < stop)
            x_in = (t[:, None] < stop) & (i[None, :] < inputs)
            d = tl.load(d_at + t[None, :] * outputs + o[:, None], mask=d_in, other=0.0)
            x = tl.load(x_at + t[:, None] * inputs + i[None, :], mask=x_in, other=0.0)
            product = tl.dot(d, x, product, input_precision="ieee")  # as torch.bmm in float32
        sum_abs += tl.abs(product)
        sum_plain += product
        sum_square += product * product
        start = stop
    inside = (o[:, None] < outputs) & (i[None, :] < inputs)
    at = o[:, None] * inputs + i[None, :]
    tl.store(abs_at + at, tl.load(abs_at + at, mask=inside) + sum_abs, mask=inside)
    tl.store(sum_at + at, tl.load(sum_at + at, mask=inside) + sum_plain, mask=inside)
    tl.store(square_at + at, tl.load(square_at + at, mask=inside) + sum_square, mask=inside)


_kernel = triton.jit(inspect.unwrap(_tile))  # Triton reads the source: no wrapper may hide it
