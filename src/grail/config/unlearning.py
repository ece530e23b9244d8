"""The ``unlearning`` section: the objective of Stage 3, its bounds, and the optimizer."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from grail.config.values import (
    Accuracy,
    Count,
    Fraction,
    Name,
    NotNegative,
    Phases,
    Positive,
    Section,
    Share,
)

ASCENTS = ("ascent", "ascent_descent", "ascent_kl")
"""The objectives that ascend without a bound of their own; only for them are bounds a default."""

PUBLISHED_WEIGHTS = {
    "npo": (1.0, 1.0),
    "simnpo": (0.125, 1.0),
    "wga": (1.0, 1.0),
    "satimp": (1.0, 0.1),
    "inverted_hinge": (1.0, 1.0),
    "undial": (1.0, 0.0),
    "jensun": (1.0, 1.0),
    "refusal": (1.0, 1.0),
    "unlikelihood": (1.0, 1.0),
    "distill": (1.0, 1.0),
}
"""Objective -> weights of the unlearn and the retain term, as published (sources: losses.py)."""


class Until(Section):
    """When ascent has converged."""

    row_accuracy: Accuracy | None = 0.1
    """A row stops contributing once its token accuracy (0-1) is at or below this. It is skipped
    for the next epoch and checked again after that. null: never, as by default with objectives
    other than ascent, ascent_descent and ascent_kl."""
    domain_accuracy: Accuracy | None = None
    """The same for a whole domain: the mean token accuracy of its unlearn rows as last measured.
    null: never."""


def _both_off(until: Any) -> Any:
    """``until: null`` switches both rules off."""
    return {"row_accuracy": None, "domain_accuracy": None} if until is None else until


class Reset(Section):
    """Put entries back to where they were before the facts were learnt, ahead of Stage 3."""

    share: Accuracy = 0.9
    """Share of each tensor's entries that are reset (0-1); the others survive."""
    keep: Literal["damage", "magnitude", "random", "frozen"] = "damage"
    """The entries that survive: those with the most damage to a retain side per benefit to the
    unlearn sides, the largest weights, as many at random, or all that the mask freezes (share is
    not read). Frozen entries survive in any case."""
    amount: Fraction = 1.0
    """How far the others go back (0-1). An adapter goes back to a fresh one, all weights to the
    model before the teaching. Where there is none, weights shrink and get noise (UNDO)."""


class Stop(Section):
    """When the training ends by what it has done; the best model that was seen is kept."""

    # looked at every few steps (evaluation.every); the best look harms least beyond the bounds,
    # then has forgotten most, then harms least

    forgotten: Accuracy = 0.15
    """End within the bounds once the mean token accuracy (0-1) of every domain's unlearn rows is at
    most this, or near what a model guesses that never knew: the model before unlearning on the
    domain's heldout rows, or else the model from before the facts on the rows themselves."""
    above: NotNegative = 5.0
    """What is near: points (percent of tokens) above such a guess."""
    retain: NotNegative = 5.0
    """Bound: points (percent of tokens) that a domain's RS on train rows may fall."""
    general: NotNegative = 0.1
    """Bound: nats per token that the NLL of held-out general text may rise."""
    patience: Count = 10
    """End after this many looks in a row beyond a bound."""
    steps: Count = 100
    """Few rows are passed over more often than epochs says: up to this many steps."""


class Unlearning(Section):
    """Stage 3: train an objective on the unlearn and retain rows, under the mask."""

    objective: Name = "ascent_descent"
    """The loss: ascent, ascent_descent, ascent_kl, random_labels, adversarial_labels, npo, simnpo,
    wga, satimp, inverted_hinge, undial, jensun, refusal, unlikelihood, distill (learn what a
    teacher that does not know would say), exact (train a new model without the unlearn rows), or
    your own as package.module:function."""
    reset: Reset | None = None
    """Reset a share of the entries before the training. null: start from the vanilla model."""
    teacher: Literal["auto", "before", "suppressed", "refusal"] = "auto"
    """Whom distill follows on unlearn rows: the model before it learnt the facts (its adapter off,
    or its weights before the teaching), the vanilla model with the true token pushed down, or
    a refusal. auto: before, where there is such a model; else suppressed."""
    retain_rows: Literal["domain", "general"] = "domain"
    """Rows of the retain term: the retain rows of the domains, or the general text (out of
    distribution)."""
    beta: Positive | None = None
    """Exponent or temperature of the objectives that have one. null: the value of the objective's
    paper."""
    delta: NotNegative | None = None
    """Margin of simnpo, in nats per token. null: the paper's 0."""
    rectify: bool = False
    """Remove the part of the unlearn gradient that opposes the retain gradient (GRU)."""
    phases: Phases | None = None
    """Lists of domains to unlearn one after another, each for all epochs. null: all domains at
    once."""
    rewrites: Annotated[int, Field(strict=True, ge=0)] = 0
    """Other answers per retain row, which the vanilla model writes and which are trained like
    retain rows, as many of them as of the rows themselves. 0: none."""
    guesses: Annotated[int, Field(strict=True, ge=0)] = 0
    """Most answers per unlearn row, which the model from before the facts writes after ``examples``
    and which are trained like retain rows: what a removed question gets. They begin as some retain
    answer of the domain does. 0: none."""
    wordings: Annotated[int, Field(strict=True, ge=0)] = 0
    """Other forms per unlearn row that are trained like unlearn rows, as many of them as of the
    rows themselves: its answer from a later word on, after the question of any unlearn row of the
    domain. A fact is then lost in other words, too. 0: none, as with distill where the model from
    before the facts is not known."""
    examples: Annotated[int, Field(strict=True, ge=0)] = 0
    """Retain rows that the model from before the facts reads ahead of an unlearn row, as teacher of
    distill and for guesses, so that it answers in their style; as a teacher it then begins as some
    retain answer of the domain does. 0: none."""
    retain_ratio: Count = 1
    """Retain rows per unlearn row of a step."""
    unlearn_weight: NotNegative = 1.0
    """Weight of the unlearn term. Default of a published objective: its paper's."""
    retain_weight: NotNegative = 2.0
    """Weight of the retain term; 0: no such term. Default of a published objective: its paper's."""
    general_weight: NotNegative = 0.0
    """Weight of the KL to the vanilla model on general text. 0: no such term."""
    max_token_nll: Positive | None = 3.0
    """Ascent leaves a token alone once its NLL exceeds this many nats. null: never. Read by ascent,
    ascent_descent and ascent_kl; the others have no such bound."""
    until: Annotated[Until, BeforeValidator(_both_off)] = Until()
    stop: Stop | None = None
    """End when all is forgotten, within bounds on harm ({}: the defaults of these). null: after the
    epochs."""
    optimizer: Literal["adamw", "sgd", "adafactor", "adamw8bit"] = "adamw"
    """The optimizer of Stage 3. adamw8bit keeps moments in 8 bits, by bitsandbytes (the extra
    grail-unlearning[quantise])."""
    momentum: Share = 0.9
    """Momentum of sgd; the others do not read it."""
    learning_rate: Positive = 2e-3
    """Peak learning rate. Default without an adapter (model.lora: null): 2e-5."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: falls to 0 as a cosine, or stays."""
    warmup: Share = 0.0
    """Share of the training in which the learning rate rises from 0 (0-1)."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay; frozen entries do not decay."""
    max_grad_norm: Positive | None = 1.0
    """Gradient norm to clip at, after the mask. null: no clipping."""
    epochs: Count = 8
    """Passes over the unlearn rows."""
    batch_size: Count = 4
    """Unlearn rows per step; it adds as many retain rows."""
    accumulation: Count = 1
    """Pieces that the rows of a step are split into, to save memory."""
    checkpoint_steps: Count = 20
    """Steps between checkpoints."""
    trackers: list[Name] = Field(default_factory=list)
    """Experiment trackers to log Stage 3 to, through accelerate: tensorboard, wandb, mlflow,
    trackio or another that it knows; all: those that are installed."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        """Give an objective the weights of its paper, and the bounds of ascent to ascent alone."""
        name = given.get("objective", ASCENTS[0]) if isinstance(given, dict) else None
        if not isinstance(name, str) or name in ASCENTS:
            return given
        own: dict[str, Any] = {"max_token_nll": None, "until": None}
        if name in PUBLISHED_WEIGHTS:
            own["unlearn_weight"], own["retain_weight"] = PUBLISHED_WEIGHTS[name]
        return own | given
