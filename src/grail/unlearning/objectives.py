"""OBJECTIVES: name -> weighted terms. A term is a loss on the rows of one side.

An objective and a mask never meet here: the loop receives both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from grail.config.run import Unlearning
from grail.errors import InputError, did_you_mean
from grail.model.answers import Answers
from grail.unlearning import losses

Loss = Callable[[Answers], Float[Tensor, " B"]]

EXACT = "exact"
"""Not an objective on the vanilla model: a new model, trained on the retain rows alone."""


@dataclass(frozen=True)
class Term:
    """One summand of an objective.

    Attributes:
        name: What its value is called in the log: SIDE/LOSS.
        side: The rows it reads: "unlearn", "retain", or "general" (out-of-distribution text).
        loss: One number per row.
        weight: What it is multiplied with; negative is ascent.
        reference: Whether the loss compares with the model before unlearning.
    """

    name: str
    side: str
    loss: Loss
    weight: float
    reference: bool = False


@dataclass(frozen=True)
class Objective:
    """What Stage 3 minimises.

    Attributes:
        terms: The summands; the first is the unlearn side's.
        labels: What the unlearn rows must say: "true" completions, "random" tokens in their place,
            or a "refusal" in place of the completion.
    """

    terms: tuple[Term, ...]
    labels: str = "true"

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that the objective reads, each once."""
        return tuple(dict.fromkeys(term.side for term in self.terms))

    def compares(self, side: str) -> bool:
        """Tell whether any term of this side needs the reference."""
        return any(term.reference for term in self.terms if term.side == side)


@dataclass(frozen=True)
class _Unlearn:
    """The unlearn term of an objective, before weights.

    ``sign`` -1 is ascent; ``reads`` are the settings of the section that belong to it.
    """

    loss: Callable[[Unlearning], Loss]
    sign: float = 1.0
    reference: bool = False
    labels: str = "true"
    reads: tuple[str, ...] = ()


def _with_beta(loss: Callable[..., Tensor], published: float) -> Callable[[Unlearning], Loss]:
    """Return the maker of a loss with one exponent or temperature, ``unlearning.beta``."""
    return lambda settings: partial(loss, beta=settings.beta or published)


def _weighted(sure: float, unsure: float) -> Callable[[Unlearning], Loss]:
    return lambda s: partial(losses.weighted_nll, sure=s.beta or sure, unsure=unsure)


def _simnpo(settings: Unlearning) -> Loss:
    return partial(losses.simnpo, beta=settings.beta or 4.5, delta=settings.delta or 0.0)


def _ascent(settings: Unlearning) -> Loss:
    if settings.max_token_nll is None:
        return losses.nll
    return partial(losses.bounded_nll, most=settings.max_token_nll)


def _plain(loss: Loss) -> Callable[[Unlearning], Loss]:
    return lambda _: loss


_ASCENT = _Unlearn(_ascent, sign=-1.0)

OBJECTIVES: dict[str, tuple[_Unlearn, Loss | None]] = {
    "ascent": (_ASCENT, None),
    "ascent_descent": (_ASCENT, losses.nll),
    "ascent_kl": (_ASCENT, losses.kl),
    "random_labels": (_Unlearn(_plain(losses.nll), labels="random"), None),
    "adversarial_labels": (_Unlearn(_plain(losses.adversarial_nll), reference=True), None),
    "npo": (_Unlearn(_with_beta(losses.npo, 0.1), reference=True, reads=("beta",)), losses.nll),
    "simnpo": (_Unlearn(_simnpo, reads=("beta", "delta")), losses.nll),
    "wga": (_Unlearn(_weighted(1.0, 0.0), sign=-1.0, reads=("beta",)), losses.nll),
    "satimp": (_Unlearn(_weighted(5.0, 1.0), sign=-1.0, reads=("beta",)), losses.nll),
    "inverted_hinge": (_Unlearn(_plain(losses.inverted_hinge)), losses.nll),
    "undial": (
        _Unlearn(_with_beta(losses.undial, 10.0), reference=True, reads=("beta",)),
        losses.nll,
    ),
    "jensun": (_Unlearn(_plain(losses.target_divergence), labels="refusal"), losses.divergence),
    "refusal": (_Unlearn(_plain(losses.nll), labels="refusal"), losses.nll),
    "unlikelihood": (_Unlearn(_plain(losses.unlikelihood)), losses.nll),
    EXACT: (_Unlearn(_plain(losses.nll)), None),  # the pipeline trains it as a vanilla model
}
"""Name -> (unlearn term, retain loss or None)."""

COMPARING = (losses.kl, losses.divergence)
"""Retain losses that read the reference."""

WITHOUT_RETAIN = "ascent"
"""What is left of the paper's objectives when their retain term is weighted 0."""


def make_objective(settings: Unlearning) -> Objective:
    """Return the objective of the ``unlearning`` section.

    Raises:
        InputError: if there is no such objective, or its settings do not go together.
    """
    name = settings.objective
    if name not in OBJECTIVES:
        raise InputError(
            f"unlearning.objective: '{name}' is unknown."
            f"{did_you_mean(name, OBJECTIVES)} Allowed: {', '.join(OBJECTIVES)}."
        )
    unlearn, retain = OBJECTIVES[name]
    _check(settings, unlearn, retain)
    loss = unlearn.loss(settings)
    first = Term(
        f"unlearn/{_name(loss)}",
        "unlearn",
        loss,
        unlearn.sign * settings.unlearn_weight,
        unlearn.reference,
    )
    terms = [first]
    if retain is not None:
        side = "retain" if settings.retain_rows == "domain" else "general"
        weight, compares = settings.retain_weight, retain in COMPARING
        terms.append(Term(f"{side}/{_name(retain)}", side, retain, weight, compares))
    if settings.general_weight:
        terms.append(Term("general/kl", "general", losses.kl, settings.general_weight, True))
    return Objective(tuple(terms), unlearn.labels)


def _check(settings: Unlearning, unlearn: _Unlearn, retain: Loss | None) -> None:
    """Refuse settings that an objective does not read, or that contradict it."""
    name = settings.objective
    if settings.rectify and retain is None:
        raise InputError(
            f"unlearning.rectify: {name} has no retain term whose gradient could be spared. "
            "Use an objective that has one (such as ascent_descent), or rectify: false."
        )
    if retain is not None and not settings.retain_weight:
        raise InputError(
            f"unlearning.retain_weight: 0 leaves {name} without its retain term. Give a weight "
            f"above 0, or use objective: {WITHOUT_RETAIN}."
        )
    for key in ("beta", "delta"):
        if getattr(settings, key) is not None and key not in unlearn.reads:
            users = [other for other, (term, _) in OBJECTIVES.items() if key in term.reads]
            raise InputError(
                f"unlearning.{key}: {name} has no {key}. Leave it out, or choose an objective that "
                f"has one: {', '.join(users)}."
            )
    if settings.general_weight and settings.retain_rows == "general":
        raise InputError(
            "unlearning.general_weight: the retain term reads the general text already. Set "
            "general_weight: 0, or retain_rows: domain."
        )


def _name(loss: Loss) -> str:
    """Return the name of a loss function, whether its settings are filled in or not."""
    return (loss.func if isinstance(loss, partial) else loss).__name__
