"""The user's own functions, which settings name as ``package.module:function``."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from grail.errors import InputError


def imported(name: str, key: str) -> Callable[..., Any]:
    """Return what ``key`` names as ``package.module:function``; InputError if there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function, None)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{key}: module '{module}' of {name} cannot be imported ({error}). Correct the name, "
            "install the module, or add its folder to PYTHONPATH."
        ) from error
    if not callable(found):
        raise InputError(f"{key}: module '{module}' has no function '{function}'. Correct {name}.")
    return found
