"""Which parameters are scored in one pass over the rows, so that their running sums fit.

Knows sizes only; what is summed does not depend on who shares the pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from grail.errors import InputError

BYTES = 12
"""Running sums per entry: of |g|, g and g squared, in float32."""

GIB = 2**30


def passes(
    parameters: Mapping[str, nn.Parameter], memory_gib: float | None
) -> list[dict[str, nn.Parameter]]:
    """Split the parameters, in their order, into groups whose running sums fit.

    Args:
        parameters: What is scored, by name.
        memory_gib: The most that the sums of a pass may take, in GiB; None: one pass for all.

    Raises:
        InputError: if the sums of one parameter alone are larger.
    """
    if memory_gib is None:
        return [dict(parameters)]
    groups: list[dict[str, nn.Parameter]] = []
    room = 0.0
    for name, parameter in parameters.items():
        size = parameter.numel() * BYTES
        if size > memory_gib * GIB:
            raise InputError(
                f"importance.memory_gib: {memory_gib:g} is too little for the sums of {name}, "
                f"which take {size / GIB:.4g} GiB. Give at least the need of the largest weight, "
                "or null."
            )
        if size > room or not groups:
            groups.append({})
            room = memory_gib * GIB
        groups[-1][name] = parameter
        room -= size
    return groups
