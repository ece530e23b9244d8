"""The ``audit`` section: the attacks, their strength and rows, and the limits of the verdict."""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from grail.config.values import Accuracy, Count, Fraction, NotNegative, Positive, Section, Share

AttackName = Literal[
    "quantise", "prune", "interpolate", "adapter", "relearn", "paraphrase", "sample", "extract"
]
ALL: tuple[AttackName, ...] = get_args(AttackName)


def _listed(rates: Any) -> Any:
    """Take one rate for a list of one."""
    return rates if rates is None or isinstance(rates, list) else [rates]


def _ascending(steps: list[int]) -> list[int]:
    """Refuse points of a curve that do not grow."""
    if steps != sorted(set(steps)):
        raise PydanticCustomError("ascending", "should grow from one number to the next")
    return steps


Rates = Annotated[list[Positive], BeforeValidator(_listed), Field(min_length=1)]
Steps = Annotated[list[Count], Field(min_length=1), AfterValidator(_ascending)]

Trained = Literal["adapter", "all"]


class Relearn(Section):
    """The relearning attack: ordinary descent on the unlearned model, once by each attacker."""

    learning_rate: Rates | None = None
    """Learning rates, each an attack of its own; a number or a list. null: a quarter of the rate of
    unlearning, that rate, and four times it."""
    train: Annotated[list[Trained], Field(min_length=1)] | None = None
    """What the attacker trains, each an attack of its own: adapter, all (weights). null: what the
    run trains. Without learning_rate, the other kind starts from its default rate of unlearning."""
    optimizer: list[Literal["adamw", "sgd"]] = Field(
        default_factory=lambda: ["adamw"], min_length=1
    )
    """Optimizers, each an attack of its own. sgd: each step is as long as AdamW's first one."""
    steps: Steps = Field(default_factory=lambda: [5, 10, 20])
    """Numbers of optimizer steps after which the model is measured, ascending."""
    batch_size: Count = 4
    """Rows per step."""
    share: Fraction = 0.1
    """Share of each domain's unlearn train rows that the attacker has (0-1); at least one row."""


class Thresholds(Section):
    """The limits of the verdict; points are percentage points of token accuracy."""

    unchanged: NotNegative = 10.0
    """A fall of at most this many points counts as no unlearning."""
    left: NotNegative = 15.0
    """Points that may remain on unlearn rows; above the oracle's, if there is one. As many points
    below the oracle are a trace."""
    back: NotNegative = 10.0
    """An attack brings knowledge back if it gains more than this many points; relearning, if it
    ends more than this many above the oracle under the same attack."""
    repetition: NotNegative = 1.2
    """What is said to unlearn questions may repeat this many times what the vanilla model repeats
    of itself on general text; above it the text is broken."""
    harmed: NotNegative = 15.0
    """Points that retain rows may lose."""
    harmed_nll: NotNegative = 0.5
    """Nats per token by which the NLL of general text may rise."""
    errors: NotNegative = 2.0
    """Standard errors from which on a difference is called certain."""


class Audit(Section):
    """What ``grail audit`` measures, and how it attacks a finished run."""

    attacks: list[AttackName] = Field(default_factory=lambda: list(ALL))
    """The attacks to make."""
    prune: list[Share] = Field(default_factory=lambda: [0.1, 0.3], min_length=1)
    """Shares of each tensor's entries to prune (0-1), one attack each."""
    interpolate: list[Accuracy] = Field(default_factory=lambda: [0.25, 0.5, 0.75])
    """How far to move back to the vanilla model (0-1), one attack each."""
    relearn: Relearn = Relearn()
    thresholds: Thresholds = Thresholds()
    max_rows: Count | None = 64
    """Rows measured per part of each side. null: all."""
    samples: Count = 8
    """Answers sampled per row, at temperature 1."""
    told: list[Fraction] = Field(default_factory=lambda: [0.5], min_length=1)
    """Shares of the true answer that the extraction attack is given (0-1)."""
    written_rows: Count | None = 12
    """Rows per domain that are answered in words: by the attacks sample and extract, and to find
    broken text. null: all measured ones."""
    generate: bool = False
    """Also generate answers after every attack."""


def with_attacks(raw: dict[str, Any]) -> dict[str, Any]:
    """Move ``evaluation.attacks``, its older name, to ``audit.attacks``, which wins if given.

    An empty list of the older name is dropped.
    """
    evaluation, audit = raw.get("evaluation"), raw.get("audit") or {}
    if not isinstance(evaluation, dict) or "attacks" not in evaluation:
        return raw
    attacks = evaluation["attacks"]
    if attacks and isinstance(audit, dict):
        audit = {"attacks": attacks} | audit
    rest = {key: value for key, value in evaluation.items() if key != "attacks"}
    return raw | {"evaluation": rest} | ({"audit": audit} if audit else {})
