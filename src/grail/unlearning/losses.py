"""Losses: what a model says about the answers of a batch in, one number per sequence out.

Knows no weights, no sides and no step; all are unchanged by padding and by who shares the batch.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from grail.answers import Answers, mean_per_row


def nll(answers: Answers) -> Float[Tensor, " B"]:
    """Mean token NLL in nats."""
    return mean_per_row(answers.nll, answers.lengths)


def bounded_nll(answers: Answers, most: float | None) -> Float[Tensor, " B"]:
    """Mean token NLL in nats, where a token counts at most ``most`` and then gives no gradient.

    Ascent on an unbounded NLL never ends: the domain that gives way first takes the whole gradient
    norm and with it the room of the others.
    """
    if most is None:
        return nll(answers)
    return mean_per_row(answers.nll.clamp(max=most), answers.lengths)
