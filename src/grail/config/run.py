"""Every setting of a run: names, defaults, limits; reports all problems at once.

The sections are those of the YAML file and of the report. Nothing here loads data or models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from grail.config.audit import Audit, with_attacks
from grail.config.importance import Importance
from grail.config.localization import Localization
from grail.config.merge import merge
from grail.config.messages import explain, short
from grail.config.presets import PRESETS, with_preset
from grail.config.teach import FORMER, Teach, refuse_old, switched
from grail.config.unlearning import Unlearning
from grail.config.values import (
    Count,
    DataSource,
    Date,
    DomainName,
    Fraction,
    GeneralTask,
    ModelName,
    Name,
    Output,
    Percent,
    Section,
    Seed,
    Share,
    words,
)
from grail.errors import InputError, collecting

FULL_WEIGHTS_RATE = 2e-5
"""Default ``learning_rate`` of teach and unlearning with ``model.lora: null``."""

DATE = "2025-01-01"
"""Default ``data.date``: with today's, equal runs would differ."""

EVERY = 4
"""Default steps between looks, where the end of the training depends on them."""

GENERAL_TASKS = ("mmlu", "arc_challenge", "truthfulqa_mc1", "social_iqa", "race")
"""The paper's general tasks (Table II), by their names in lm-eval."""


class Lora(Section):
    """The low-rank adapter to train, in PEFT's terms; an existing adapter keeps its own."""

    r: Count = 8
    """Rank."""
    alpha: Count = 16
    """Scale: the update is multiplied by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input (0-1)."""
    target_modules: Annotated[str | list[str], BeforeValidator(words)] = "all-linear"
    """The modules that get an adapter: PEFT's name for a group, or a list."""


class Model(Section):
    """The model, its precision, and whether an adapter or all weights are trained."""

    name: ModelName = "smollm2-135m"
    """A packaged model, a Hub id, a folder (model or PEFT adapter) or a GGUF file. A path if it
    begins with ./, ../, ~ or /, or exists beside the settings file."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision. auto: float32 to train all weights; under an adapter bfloat16 (or float16) where
    the hardware has it."""
    attention: Literal["auto", "packed", "eager", "sdpa"] = "auto"
    """packed: rows are concatenated instead of padded. auto: packed on a CPU if the model allows
    it (else eager), sdpa on a GPU."""
    quantise: Literal["nf4", "int8"] | None = None
    """Bits of the frozen base under an adapter: nf4 (4, QLoRA) or int8 (8), by bitsandbytes (the
    extra grail-unlearning[quantise]). Embedding and LM head take 8 in both. null: none."""
    gradient_checkpointing: bool = False
    """Train with the inputs of each layer alone in memory; the rest is computed again."""
    lora: Lora | None = Lora()
    """null trains all weights, by default at a learning rate of 2e-5."""

    @model_validator(mode="after")
    def _trainable(self) -> Model:
        if self.lora is None and self.dtype == "float16":
            raise ValueError(
                "dtype: float16 cannot train all weights (its small gradients become 0); "
                "use auto, float32 or bfloat16, or an adapter (lora)"
            )
        if self.lora is None and self.quantise is not None:
            raise ValueError(
                f"quantise: {self.quantise} weights cannot be trained; use an adapter (lora: "
                "{}), or quantise: null"
            )
        return self


class Part(Section):
    """The rows of one side: a file, ``hub:OWNER/NAME[:CONFIG[:SPLIT]]`` or ``embedded``."""

    train: DataSource
    """Training rows: a file, hub:OWNER/NAME or embedded."""
    val: DataSource | None = None
    """Validation rows: only measured. null: none."""


class UnlearnPart(Part):
    """The rows to unlearn."""

    heldout: DataSource | None = None
    """Similar rows that no model has seen, to compare with; only measured."""


class Domain(Section):
    """The rows to unlearn and the rows to retain on one subject."""

    unlearn: UnlearnPart
    retain: Part


class Measured(Section):
    """Rows that are measured before and after, and never trained."""

    rows: DataSource
    """What must stay as it was, such as an earlier request, neighbours or another customer."""


class Data(Section):
    """How rows become token ids."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """Prompt format. auto: the tokenizer's chat template if it has one."""
    date: Date = DATE
    """The date that a chat template reads where it asks the clock."""
    max_tokens: Annotated[int, Field(strict=True, ge=8)] = 256
    """Upper limit of a row's tokens, prompt and completion."""
    columns: dict[Literal["prompt", "completion", "paraphrases"], Name] = Field(
        default_factory=dict
    )
    """What the files call a row's prompt, completion and paraphrases, if neither by these names
    nor by those of another layout; upper and lower case are the same."""
    max_rows: Count | None = None
    """Upper limit of rows per part of each side. null: all."""
    max_val_rows: Count | None = None
    """The same for val parts. null: max_rows."""


class General(Section):
    """Out-of-distribution text, to measure the damage to everything else."""

    train: DataSource | None = "embedded"
    """Rows of general text: a file, hub:OWNER/NAME or embedded."""


class Evaluation(Section):
    """What is measured before and after unlearning."""

    generate: bool = True
    """Generate answers (ROUGE-L)."""
    every: Count | None = None
    """Steps of Stage 3 between looks at the model: success on train rows, NLL of general text, on
    at most 64 rows each. null: 4 where unlearning.stop reads them; else none."""
    batch_size: Count = 32
    """Rows per batch."""
    max_new_tokens: Count = 96
    """Upper limit of generated tokens per answer."""
    min_k: Fraction = 0.2
    """Share of a row's least probable tokens in Min-K% and Min-K%++ (0-1)."""
    show_text: bool = False
    """Write prompts, completions and generations to samples and report."""
    neighbours: Annotated[int, Field(strict=True, ge=0)] = 0
    """Questions that the model before unlearning writes and answers itself, half of them begun like
    unlearn prompts; what tells nothing of unlearn rows is measured before and after. 0: none."""
    retain_target: Percent | None = None
    """Also measure the unlearned model moved back to the vanilla one until the mean RS of its
    train rows is this many percent."""
    general_tasks: list[GeneralTask] = Field(default_factory=list)
    """Multiple-choice tasks: names of lm-eval's, JSONL files, or folders of them (with a
    slash)."""
    general_max_items: Count | None = None
    """Upper limit of items per general task. null: all."""


class Config(Section):
    """One run."""

    preset: Name | None = Field(
        None,
        description=f"A method by name; given keys win over its own: {', '.join(PRESETS)}.",
    )
    model: Model = Model()
    domains: Annotated[dict[DomainName, Domain], Field(min_length=1)]
    """Name of a domain -> its rows."""
    check: dict[DomainName, Measured] = Field(default_factory=dict)
    """Name -> rows that are only measured: the verdict says whether they held."""
    data: Data = Data()
    general: General = General()
    teach: Annotated[Teach | None, BeforeValidator(switched)] = None
    """Teach the rows first (true: as the defaults say). null: model.name is the model before
    unlearning, taken as it is."""
    importance: Importance = Importance()
    localization: Localization = Localization()
    unlearning: Unlearning = Unlearning()
    evaluation: Evaluation = Evaluation()
    audit: Audit = Audit()
    seed: Seed = 0
    """Seed of every random draw."""
    output: Output
    """Run directory, relative to the current folder. In a file it may be left out: runs/ and the
    file's name."""
    made_with: dict[str, Any] | None = None
    """Versions and hashes, added by a finished run; not read."""

    @property
    def teaches(self) -> bool:
        """Whether the rows are taught in this run before they are unlearned."""
        return self.teach is not None and self.teach.adapter is None

    @property
    def adapter(self) -> str | None:
        """The adapter that is put on ``model.name``, if one is given beside it."""
        return self.teach.adapter if self.teach else None

    @property
    def every(self) -> int | None:
        """Steps of Stage 3 between looks at the model; None: none are taken."""
        return self.evaluation.every or (EVERY if self.unlearning.stop else None)

    @property
    def vanilla_seed(self) -> int:
        """The seed of the vanilla model: that of its teaching, of the scores if none, the run's."""
        if self.teach is None:  # draws a fresh adapter: a comparison's cells must share it
            return self.label_seed
        return self.seed if self.teach.seed is None else self.teach.seed

    @property
    def label_seed(self) -> int:
        """The seed of the random labels: their own, or the run's."""
        return self.seed if self.importance.seed is None else self.importance.seed


def parse_config(raw: Any, folder: Path | str = "") -> Config:
    """Check settings as read from YAML; every relative path of data and model becomes absolute.

    ``raw`` has sections, nested or with dotted keys; relative paths start from ``folder`` (default:
    the current one). An InputError names every problem by its key, what was given and what is
    allowed.
    """
    if not isinstance(raw, dict):
        raise InputError(f"the configuration must be a mapping of sections, got {short(raw)}")
    raw, problems = merge(raw), list[str]()
    with collecting(problems):
        refuse_old(raw)
    raw.pop(FORMER, None)
    try:
        sections = _with_layer(_with_rates(with_preset(with_attacks(raw))))
        config = Config.model_validate(sections, context=folder)
    except ValidationError as error:
        problems += [explain(dict(problem), Config) for problem in error.errors()]
        raise InputError(problems) from error
    if problems:
        raise InputError(problems)
    return config


def _with_layer(raw: dict[str, Any]) -> dict[str, Any]:
    """Settle what ``localization.layer: auto`` means, so that a run's file says it."""
    model, section = raw.get("model"), raw.get("localization", {})
    if not isinstance(section, dict) or section.get("layer", "auto") != "auto":
        return raw
    whole = isinstance(model, dict) and model.get("lora", "adapter") is None
    return merge(raw, {"localization": {"layer": "block" if whole else "tensor"}})


def _with_rates(raw: dict[str, Any]) -> dict[str, Any]:
    """Add the learning rates for full weights; those of an adapter would destroy the model."""
    model = raw.get("model")
    if not isinstance(model, dict) or model.get("lora", "adapter") is not None:
        return raw
    rate = {"learning_rate": FULL_WEIGHTS_RATE}
    teach = switched(raw.get("teach"))
    taught = {"teach": merge(rate, teach)} if isinstance(teach, dict) else {}
    return merge({"unlearning": rate}, raw, taught)
