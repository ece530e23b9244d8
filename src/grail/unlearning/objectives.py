"""OBJECTIVES: name -> weighted terms. A term is a loss on the rows of one side.

To use a loss of your own, write a function

    def my_loss(answers: Answers) -> Float[Tensor, " B"]: ...

It gets the model's answers for B rows of one side (logits, targets and lengths of the answer
tokens, see ``grail.model.answers.Answers``) and returns one number per row, which is minimised; a
row's number must not depend on the other rows. If the function has an attribute
``needs_reference = True``, ``answers.reference`` holds the logits of the model before unlearning,
else it is None. There are two ways to train with it:

- in the settings, ``unlearning.objective: package.module:my_loss``. It is the loss of the unlearn
  rows, times ``unlearn_weight``. The loss of the retain rows is the NLL, times ``retain_weight``
  (0: no such term). The module must be importable: installed, or in a folder on PYTHONPATH.
- in Python, ``Objective((Term("unlearn/mine", "unlearn", my_loss, 1.0), ...))``, for any side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from grail.config.run import Unlearning
from grail.errors import InputError, did_you_mean
from grail.files import file_digest
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
        source: SHA-256 of the file that defines the loss, where it is the user's own.
    """

    terms: tuple[Term, ...]
    labels: str = "true"
    source: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that the objective reads, each once."""
        return tuple(dict.fromkeys(term.side for term in self.terms))

    def of(self, side: str) -> list[Term]:
        """Return the terms of one side."""
        return [term for term in self.terms if term.side == side]

    def compares(self, side: str) -> bool:
        """Tell whether any term of this side needs the reference."""
        return any(term.reference for term in self.of(side))


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
    name, source = settings.objective, ""
    if ":" in name:
        unlearn, source = _own_loss(name)
        retain = losses.nll if settings.retain_weight else None
    elif name in OBJECTIVES:
        unlearn, retain = OBJECTIVES[name]
    else:
        raise InputError(
            f"unlearning.objective: '{name}' is unknown."
            f"{did_you_mean(name, OBJECTIVES)} Allowed: {', '.join(OBJECTIVES)}, or "
            "package.module:function."
        )
    _check(settings, unlearn, retain)
    loss = unlearn.loss(settings)
    weight = unlearn.sign * settings.unlearn_weight
    terms = [Term(f"unlearn/{_name(loss)}", "unlearn", loss, weight, unlearn.reference)]
    if retain is not None:
        side = "retain" if settings.retain_rows == "domain" else "general"
        weight, compares = settings.retain_weight, retain in COMPARING
        terms.append(Term(f"{side}/{_name(retain)}", side, retain, weight, compares))
    if settings.general_weight:
        terms.append(Term("general/kl", "general", losses.kl, settings.general_weight, True))
    return Objective(tuple(terms), unlearn.labels, source)


def _own_loss(name: str) -> tuple[_Unlearn, str]:
    """Return the unlearn term of ``package.module:function`` and the digest of its file.

    Raises:
        InputError: if there is no such function; later, if it does not return one loss per row.
    """
    key, (module_name, _, function_name) = f"unlearning.objective: {name}", name.partition(":")
    try:
        module: Any = import_module(module_name)
    except Exception as error:  # the user's own module may raise anything
        raise InputError(
            f"{key}: the module cannot be imported ({error}). Install it, or put its folder on "
            "PYTHONPATH."
        ) from error
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{key}: {module_name} has no function '{function_name}'.")

    @wraps(function)
    def loss(answers: Answers) -> Float[Tensor, " B"]:
        values: Any = function(answers)
        wanted, shape = tuple(answers.lengths.shape), getattr(values, "shape", None)
        if shape is None or tuple(shape) != wanted:
            returned = type(values).__name__ if shape is None else f"shape {tuple(shape)}"
            raise InputError(
                f"{key} returned {returned} for {wanted[0]} rows. It must return one loss per row, "
                f"a tensor of shape {wanted}."
            )
        return values

    term = _Unlearn(_plain(loss), reference=getattr(function, "needs_reference", False))
    return term, file_digest(Path(module.__file__))


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
