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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from importlib import import_module
from inspect import getmodule
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from grail.config.unlearning import ASCENTS, Unlearning, Until
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
class _Recipe:
    """An objective before weights and settings.

    ``loss`` is the unlearn rows', and ascends where ``sign`` is -1. ``constants`` are the settings
    that it reads (keyword arguments of ``loss``), with the values of its paper; ``bounds`` are the
    settings that may end its ascent.
    """

    loss: Callable[..., Tensor]
    retain: Loss | None = None
    sign: float = 1.0
    reference: bool = False
    labels: str = "true"
    constants: Mapping[str, float] = field(default_factory=dict)
    bounds: tuple[str, ...] = ()


_BOUNDS = ("max_token_nll", "until")


def _weighted(loss: Callable[..., Tensor], beta: float) -> _Recipe:
    return _Recipe(loss, losses.nll, sign=-1.0, constants={"beta": beta}, bounds=("until",))


OBJECTIVES = {
    "ascent": _Recipe(losses.nll, sign=-1.0, bounds=_BOUNDS),
    "ascent_descent": _Recipe(losses.nll, losses.nll, sign=-1.0, bounds=_BOUNDS),
    "ascent_kl": _Recipe(losses.nll, losses.kl, sign=-1.0, bounds=_BOUNDS),
    "random_labels": _Recipe(losses.nll, labels="random"),
    "adversarial_labels": _Recipe(losses.adversarial_nll, reference=True),
    "npo": _Recipe(losses.npo, losses.nll, reference=True, constants={"beta": 0.1}),
    "simnpo": _Recipe(losses.simnpo, losses.nll, constants={"beta": 4.5, "delta": 0.0}),
    "wga": _weighted(losses.weighted_nll, beta=1.0),
    "satimp": _weighted(partial(losses.weighted_nll, unsure=1.0), beta=5.0),
    "inverted_hinge": _Recipe(losses.inverted_hinge, losses.nll),
    "undial": _Recipe(losses.undial, losses.nll, reference=True, constants={"beta": 10.0}),
    "jensun": _Recipe(losses.target_divergence, losses.divergence, labels="refusal"),
    "refusal": _Recipe(losses.nll, losses.nll, labels="refusal"),
    "unlikelihood": _Recipe(losses.unlikelihood, losses.nll),
    "distill": _Recipe(losses.kl, losses.nll, reference=True),  # or as _TEACHERS says
    EXACT: _Recipe(losses.nll),  # the pipeline trains it as a vanilla model
}

_TEACHERS = {
    **dict.fromkeys(("auto", "before"), OBJECTIVES["distill"]),
    "suppressed": OBJECTIVES["undial"],
    "refusal": OBJECTIVES["refusal"],
}
"""``unlearning.teacher`` -> the recipe of distill; who asks has settled what "auto" means."""

_COMPARING = (losses.kl, losses.divergence)
"""Retain losses that read the reference."""


def make_objective(settings: Unlearning) -> Objective:
    """Return the objective of the ``unlearning`` section.

    Raises:
        InputError: if there is no such objective, or its settings do not go together.
    """
    name, source = settings.objective, ""
    if ":" in name:
        recipe, source = _own_loss(name)
    elif name in OBJECTIVES:
        recipe = OBJECTIVES[name] if name != "distill" else _TEACHERS[settings.teacher]
    else:
        raise InputError(
            f"unlearning.objective: '{name}' is unknown."
            f"{did_you_mean(name, OBJECTIVES)} Allowed: {', '.join(OBJECTIVES)}, or "
            "package.module:function."
        )
    _check(settings, recipe)
    values = {key: getattr(settings, key) or value for key, value in recipe.constants.items()}
    loss = partial(recipe.loss, **values) if values else recipe.loss
    if settings.max_token_nll is not None:
        loss = partial(losses.bounded_nll, most=settings.max_token_nll)
    weight, retain = recipe.sign * settings.unlearn_weight, recipe.retain
    label = _name(loss) if recipe.labels == "true" else f"{recipe.labels}_{_name(loss)}"
    terms = [Term(f"unlearn/{label}", "unlearn", loss, weight, recipe.reference)]
    if retain is not None and settings.retain_weight:
        side = "retain" if settings.retain_rows == "domain" else "general"
        weight, compares = settings.retain_weight, retain in _COMPARING
        terms.append(Term(f"{side}/{_name(retain)}", side, retain, weight, compares))
    if settings.general_weight:
        terms.append(Term("general/kl", "general", losses.kl, settings.general_weight, True))
    return Objective(tuple(terms), recipe.labels, source)


def _own_loss(name: str) -> tuple[_Recipe, str]:
    """Return the recipe with ``package.module:function``, and the digest of its file."""
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

    file = getattr(getmodule(function) or module, "__file__", None)
    compares = getattr(function, "needs_reference", False)
    recipe = _Recipe(loss, losses.nll, reference=compares, bounds=("until",))
    return recipe, file_digest(Path(file)) if file else ""


def _check(settings: Unlearning, recipe: _Recipe) -> None:
    """Refuse settings that an objective does not read, or that contradict it."""
    name, retain = settings.objective, recipe.retain is not None and settings.retain_weight > 0
    if settings.rectify and not retain:
        raise InputError(
            f"unlearning.rectify: {name} has no retain term whose gradient could be spared. "
            "Use an objective that has one (such as ascent_descent), or rectify: false."
        )
    if name in ASCENTS and recipe.retain is not None and not retain:
        raise InputError(
            f"unlearning.retain_weight: 0 leaves {name} without its retain term. Give a weight "
            f"above 0, or use objective: ascent."
        )
    given = {key: getattr(settings, key) for key in ("beta", "delta", "max_token_nll")}
    given["until"] = None if settings.until == Until(row_accuracy=None) else settings.until
    for key, value in given.items():
        if value is not None and key not in (*recipe.constants, *recipe.bounds):
            users = [
                n for n, other in OBJECTIVES.items() if key in (*other.constants, *other.bounds)
            ]
            raise InputError(
                f"unlearning.{key}: {name} has no {key}. Set it to null, or choose an objective "
                f"that has one: {', '.join(users)}."
            )
    taught = settings.teacher != "auto" or (settings.examples and not settings.guesses)
    if taught and name != "distill":
        raise InputError(
            f"unlearning.teacher and examples: {name} follows no teacher. Leave them out, or "
            "choose distill."
        )
    reads = name == EXACT or (retain and settings.retain_rows == "domain")
    if (settings.rewrites or settings.guesses or settings.retain_ratio > 1) and not reads:
        raise InputError(
            f"unlearning.rewrites, guesses and retain_ratio: {name} is set to read no retain "
            "rows. Set them to 0, 0 and 1, or train the retain rows of the domains."
        )
    if settings.general_weight and retain and settings.retain_rows == "general":
        raise InputError(
            "unlearning.general_weight: the retain term reads the general text already. Set "
            "general_weight: 0, or retain_rows: domain."
        )


def _name(loss: Loss) -> str:
    """Return the name of a loss function, whether its settings are filled in or not."""
    return (loss.func if isinstance(loss, partial) else loss).__name__
