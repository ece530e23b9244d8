"""Remove knowledge from language models on request, and prove it: the GRAIL method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grail.api import evaluate, localize, samples, score, unlearn
    from grail.artifacts import Mask, Scores
    from grail.data.samples import Sample
    from grail.errors import DivergenceError, InputError
    from grail.results import Results
    from grail.training.masked import MaskedOptimizer, MaskedTrainerMixin

__version__ = "0.1.0"

_MODULES = {
    **dict.fromkeys(("evaluate", "localize", "samples", "score", "unlearn"), "api"),
    **dict.fromkeys(("Mask", "Scores"), "artifacts"),
    **dict.fromkeys(("DivergenceError", "InputError"), "errors"),
    **dict.fromkeys(("MaskedOptimizer", "MaskedTrainerMixin"), "training.masked"),
    "Results": "results",
    "Sample": "data.samples",
}
__all__ = [
    "DivergenceError",
    "InputError",
    "Mask",
    "MaskedOptimizer",
    "MaskedTrainerMixin",
    "Results",
    "Sample",
    "Scores",
    "evaluate",
    "localize",
    "samples",
    "score",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``grail --help`` needs no torch."""
    if name in _MODULES:
        return getattr(import_module(f"grail.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'grail' has no attribute {name!r}")
