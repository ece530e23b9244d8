"""Every setting of a run: names, defaults, limits; says what is wrong, all of it at once.

The sections are those of the YAML file and of the report. Nothing here loads data or models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from grail.config.audit import Audit, with_attacks
from grail.config.importance import Importance
from grail.config.localization import Localization
from grail.config.messages import explain, short
from grail.config.presets import with_preset
from grail.config.values import (
    Accuracy,
    Count,
    DomainName,
    Fraction,
    Name,
    NotNegative,
    Percent,
    Phases,
    Positive,
    Section,
    Seed,
    Share,
    words,
)
from grail.errors import InputError

FULL_WEIGHTS_RATE = 2e-5
"""Default ``learning_rate`` of vanilla and unlearning with ``model.lora: null``."""

GENERAL_TASKS = ("mmlu", "arc_challenge", "truthfulqa_mc1", "social_iqa", "race")
"""The paper's general tasks (Table II), by their names in lm-eval."""


class Lora(Section):
    """The low-rank adapter that is trained (PEFT's names); a given adapter brings its own."""

    r: Count = 8
    alpha: Count = 16
    dropout: Share = 0.0
    target_modules: Annotated[str | list[str], BeforeValidator(words)] = "all-linear"


class Model(Section):
    """Which model, in which precision. ``lora: null`` trains all weights, in float32.

    ``attention``: ``packed`` reads rows behind each other, without padding; ``auto`` does so on a
    CPU, where the model can (else ``eager``), and takes ``sdpa`` on a GPU.
    """

    name: Name = "smollm2-135m"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["auto", "packed", "eager", "sdpa"] = "auto"
    lora: Lora | None = Lora()

    @model_validator(mode="after")
    def _trainable(self) -> Model:
        if self.lora is None and self.dtype == "float16":
            raise ValueError(
                "dtype: float16 cannot train all weights (AdamW divides by zero in it); "
                "use auto, float32 or bfloat16, or an adapter (lora)"
            )
        return self


class Part(Section):
    """Where the rows of one side come from: a file, ``hub:...`` or ``embedded``."""

    train: Name
    val: Name | None = None


class UnlearnPart(Part):
    """``heldout``: rows like these that no model has seen, to compare with; only measured."""

    heldout: Name | None = None


class Domain(Section):
    """What must be lost and what must be kept on the same subject."""

    unlearn: UnlearnPart
    retain: Part


class Data(Section):
    """How rows become token ids.

    ``max_rows`` is the limit of each part of each side; ``max_val_rows``, where given, that of val.
    """

    template: Literal["auto", "chat", "plain"] = "auto"
    max_tokens: Annotated[int, Field(strict=True, ge=8)] = 256
    max_rows: Count | None = None
    max_val_rows: Count | None = None


class General(Section):
    """Out-of-distribution text, on which the damage to everything else is measured."""

    train: Name | None = "embedded"


class Vanilla(Section):
    """The model before unlearning: trained here on both sides of all domains, or given.

    The stage ends when every side's mean token accuracy has reached ``until``, or after ``epochs``.
    ``seed`` is that of the order of rows; null takes the run's, a number lets runs share the model.
    """

    epochs: Count = 24
    learning_rate: Positive = 3e-3
    batch_size: Count = 16
    until: Fraction = 0.99
    include_val: bool = True
    adapter: Name | None = None
    skip: bool = False
    max_grad_norm: Positive = 1.0
    checkpoint_steps: Count = 20
    seed: Seed | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Vanilla:
        if self.adapter is not None and self.skip:
            raise ValueError("adapter and skip exclude each other: give one of them")
        return self


class Until(Section):
    """When ascent counts as converged; ``null`` switches a rule off (the paper: both off).

    ``row_accuracy``: a row is left alone once its token accuracy is at or below this.
    ``domain_accuracy``: a domain is, once the mean of its rows as last seen is at or below this.
    What is left alone rests for the next epoch, too, and is then looked at again.
    """

    row_accuracy: Accuracy | None = 0.1
    domain_accuracy: Accuracy | None = None


def _both_off(given: Any) -> Any:
    """``until: null`` switches both rules off."""
    return {"row_accuracy": None, "domain_accuracy": None} if given is None else given


class Unlearning(Section):
    """Stage 3: an objective on the unlearn and the retain side, under the mask.

    ``objective``: a name of grail.unlearning.objectives, or ``package.module:function``, a loss of
    your own.
    ``retain_rows``: where the retain term reads: the domains' retain rows, or the general text
    (out-of-distribution). ``general_weight``: above 0, the KL to the vanilla model on general text
    is held down too. ``beta`` and ``delta`` belong to the objective; null takes the value that
    its paper gives. ``rectify`` takes out of the unlearn gradient what opposes the retain gradient
    (GRU). ``phases`` unlearns lists of domains one after another, each for all ``epochs``; null
    unlearns all at once.
    """

    objective: Name = "ascent_descent"
    retain_rows: Literal["domain", "general"] = "domain"
    beta: Positive | None = None
    delta: NotNegative | None = None
    rectify: bool = False
    phases: Phases | None = None
    unlearn_weight: NotNegative = 1.0
    retain_weight: NotNegative = 2.0
    general_weight: NotNegative = 0.0
    max_token_nll: Positive | None = 3.0
    until: Annotated[Until, BeforeValidator(_both_off)] = Until()
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    momentum: Share = 0.9
    learning_rate: Positive = 2e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Share = 0.0
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive | None = 1.0
    epochs: Count = 8
    batch_size: Count = 4
    accumulation: Count = 1
    checkpoint_steps: Count = 20
    trackers: list[Name] = Field(default_factory=list)


class Evaluation(Section):
    """What is measured before and after.

    ``retain_target``: also measure the unlearned model moved back towards the vanilla one until
    the mean RS of its train rows reaches this many percent. ``min_k``: the share of a row's least
    probable tokens that Min-K% and Min-K%++ read. ``general_tasks``: names of lm-eval's tasks,
    JSONL files of multiple-choice rows, or folders of such files; of each task the first
    ``general_max_items`` items are asked.
    """

    generate: bool = True
    batch_size: Count = 32
    max_new_tokens: Count = 96
    min_k: Fraction = 0.2
    show_text: bool = False
    retain_target: Percent | None = None
    general_tasks: list[Name] = Field(default_factory=list)
    general_max_items: Count | None = None


class Config(Section):
    """One run. ``made_with`` is what a finished run adds (versions, hashes); it is not read.

    ``preset`` names a method of grail.config.presets; its values stand where the file gives none.
    """

    preset: Name | None = None
    model: Model = Model()
    domains: Annotated[dict[DomainName, Domain], Field(min_length=1)]
    data: Data = Data()
    general: General = General()
    vanilla: Vanilla = Vanilla()
    importance: Importance = Importance()
    localization: Localization = Localization()
    unlearning: Unlearning = Unlearning()
    evaluation: Evaluation = Evaluation()
    audit: Audit = Audit()
    seed: Seed = 0
    output: Name
    made_with: dict[str, Any] | None = None

    @property
    def vanilla_seed(self) -> int:
        """The seed of the vanilla model: its own, or the run's."""
        return self.seed if self.vanilla.seed is None else self.vanilla.seed

    @property
    def label_seed(self) -> int:
        """The seed of the random labels: their own, or the run's."""
        return self.seed if self.importance.seed is None else self.importance.seed


def parse_config(raw: Any) -> Config:
    """Check a mapping as read from YAML.

    Raises:
        InputError: naming every problem by its key, what was given and what is allowed.
    """
    if not isinstance(raw, dict):
        raise InputError(f"the configuration must be a mapping of sections, got {short(raw)}")
    try:
        return Config.model_validate(_with_rates(with_preset(with_attacks(raw))))
    except ValidationError as error:
        problems = [explain(dict(problem), Config) for problem in error.errors()]
        raise InputError("\n".join(problems)) from error


def _with_rates(raw: dict[str, Any]) -> dict[str, Any]:
    """Fill in learning rates for full weights: those of an adapter would destroy the model."""
    model = raw.get("model")
    if not isinstance(model, dict) or model.get("lora", "adapter") is not None:
        return raw
    sections = {name: raw.get(name, {}) for name in ("vanilla", "unlearning")}
    filled = {
        name: {"learning_rate": FULL_WEIGHTS_RATE} | section
        for name, section in sections.items()
        if isinstance(section, dict)
    }
    return raw | filled
