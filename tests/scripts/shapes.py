"""Shapes (``Float[Tensor, "B P"]``) are checked in the functions whose signature says any.

Types without shapes are pyright's to check. Checking takes longer than what most of the functions
do with tiny models: in every test the first calls of each are checked.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args, get_origin

import jaxtyping
from jaxtyping import AbstractArray

CALLS = 5
"""How many calls of a function are checked in a test."""

called: Counter[Callable[..., Any]] = Counter()
"""How often each was called in this test, up to that."""

_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(*, typechecker: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """``jaxtyping.jaxtyped``, as its import hook calls it, for what says shapes."""
    wrap = _jaxtyped(typechecker=typechecker)
    return lambda thing: _first_calls(thing, wrap) if says_shapes(thing) else thing


def says_shapes(thing: Callable[..., Any]) -> bool:
    """Tell whether a function or a data class outside of functions has an annotation of arrays."""
    if "<locals>" in thing.__qualname__:
        return False
    try:
        annotations = inspect.get_annotations(thing, eval_str=True)
    except NameError:  # of a class that its module defines later: it may be among arrays
        return True
    return any(map(_of_arrays, annotations.values()))


def _first_calls(thing: Callable[..., Any], wrap: Callable[..., Any]) -> Callable[..., Any]:
    checked = wrap(thing)
    if inspect.isclass(thing):
        return checked

    @functools.wraps(thing)
    def first(*arguments: Any, **more: Any) -> Any:
        if called[thing] >= CALLS:
            return thing(*arguments, **more)
        called[thing] += 1
        return checked(*arguments, **more)

    return first


def _of_arrays(annotation: object) -> bool:
    if get_origin(annotation) is not None:
        return any(map(_of_arrays, get_args(annotation)))
    return inspect.isclass(annotation) and issubclass(annotation, AbstractArray)
