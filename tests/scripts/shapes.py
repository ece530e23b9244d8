"""The type checker of the tests: beartype, for functions that say shapes (``Float[Tensor, ...]``).

Types without shapes are pyright's to check. Functions inside functions are left out: they would be
decorated anew whenever the outer one runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_origin

from beartype import beartype
from jaxtyping import AbstractArray


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, with beartype's checks where they are of any use."""
    given = getattr(function, "__annotations__", {}).values()
    inner = "<locals>" in function.__qualname__
    return function if inner or not any(map(_of_arrays, given)) else beartype(function)


def _of_arrays(annotation: object) -> bool:
    if get_origin(annotation) is not None:
        return any(map(_of_arrays, get_args(annotation)))
    return inspect.isclass(annotation) and issubclass(annotation, AbstractArray)
