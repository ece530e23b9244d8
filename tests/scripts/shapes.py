"""Shapes (``Float[Tensor, "B P"]``) are checked in the functions whose signature says any.

Types without shapes are pyright's to check. jaxtyping's import hook would wrap every function of
the package, those inside functions whenever the outer one runs: a tenth of the suite's time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_origin

import jaxtyping
from jaxtyping import AbstractArray

_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(*, typechecker: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """``jaxtyping.jaxtyped``, as its import hook calls it, for what says shapes."""
    wrap = _jaxtyped(typechecker=typechecker)
    return lambda thing: wrap(thing) if says_shapes(thing) else thing


def says_shapes(thing: Callable[..., Any]) -> bool:
    """Tell whether a function or a data class outside of functions has an annotation of arrays."""
    if "<locals>" in thing.__qualname__:
        return False
    try:
        annotations = inspect.get_annotations(thing, eval_str=True)
    except NameError:  # of a class that its module defines later: it may be among arrays
        return True
    return any(map(_of_arrays, annotations.values()))


def _of_arrays(annotation: object) -> bool:
    if get_origin(annotation) is not None:
        return any(map(_of_arrays, get_args(annotation)))
    return inspect.isclass(annotation) and issubclass(annotation, AbstractArray)
