"""OBJECTIVES: name -> weighted terms. A term is a loss on the rows of one side.

An objective and a mask never meet here: the loop receives both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from grail.answers import Answers
from grail.config import Unlearning
from grail.errors import InputError, did_you_mean
from grail.unlearning.losses import bounded_nll, nll

Loss = Callable[[Answers], Float[Tensor, " B"]]


@dataclass(frozen=True)
class Term:
    """One summand of an objective.

    Attributes:
        name: What its value is called in the log: SIDE/LOSS.
        side: The rows it reads.
        loss: One number per row.
        weight: What it is multiplied with; negative is ascent.
    """

    name: str
    side: str
    loss: Loss
    weight: float


def _ascent(settings: Unlearning) -> tuple[Term, ...]:
    """Gradient ascent on the unlearn side alone."""
    most = settings.max_token_nll
    name, loss = ("nll", nll) if most is None else ("bounded_nll", partial(bounded_nll, most=most))
    return (Term(f"unlearn/{name}", "unlearn", loss, -settings.unlearn_weight),)


def _ascent_descent(settings: Unlearning) -> tuple[Term, ...]:
    """Ascent on the unlearn side plus descent on the retain side (paper, Stage 3)."""
    return (*_ascent(settings), Term("retain/nll", "retain", nll, settings.retain_weight))


OBJECTIVES: dict[str, Callable[[Unlearning], tuple[Term, ...]]] = {
    "ascent": _ascent,
    "ascent_descent": _ascent_descent,
}


def make_terms(settings: Unlearning) -> tuple[Term, ...]:
    """Return the terms of ``unlearning.objective``.

    Raises:
        InputError: if there is no such objective.
    """
    if settings.objective not in OBJECTIVES:
        raise InputError(
            f"unlearning.objective: '{settings.objective}' is unknown."
            f"{did_you_mean(settings.objective, OBJECTIVES)} Allowed: {', '.join(OBJECTIVES)}."
        )
    return OBJECTIVES[settings.objective](settings)
