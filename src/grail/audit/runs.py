"""The finished runs that an audit reads: the audited one, and its oracle. Nothing is changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from grail import artifacts
from grail.audit.attacks.attackers import check_attackers
from grail.config import file as config_file
from grail.config.merge import with_overrides
from grail.config.run import Config
from grail.errors import InputError
from grail.evaluation import equal_retention
from grail.files import digest
from grail.results import read_pace, read_results
from grail.run import directory, manifest, refusals
from grail.run.inputs import Inputs, read_inputs
from grail.run.provenance import model_identity

_LEARNING = ("batch_size", "epochs", "include_val", "learning_rate", "max_grad_norm", "until")
"""Keys of ``teach`` that say how well a model learns its rows."""

_READ = ("config.yaml", *manifest.MODELS, *manifest.MASKS, *manifest.RESULTS[:2], "train.jsonl")
"""What an audit reads of a run."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its folder, settings and data, and the digest of each of its models."""

    folder: Path
    config: Config
    inputs: Inputs
    weights: dict[str, str]

    @property
    def is_oracle(self) -> bool:
        """Whether its unlearned model was trained without the unlearn rows."""
        return self.config.unlearning.objective == "exact"

    @property
    def retraining(self) -> str:
        """The options that make this run an exact one; "" if it did not teach all it unlearned."""
        settings = self.config
        if self.is_oracle or not settings.teaches:
            return ""
        unread = {"general_weight": 0, "phases": "null"}  # given keys win over the preset's
        given = [
            f"unlearning.{k}={v}" for k, v in unread.items() if getattr(settings.unlearning, k)
        ]
        return " ".join(f"--set {text}" for text in ("preset=exact", *given))

    @property
    def seconds(self) -> float | None:
        """How long the unlearned model was trained: steps times the median; None without a log.

        Raises:
            InputError: if the log is damaged.
        """
        pace = read_pace(self.folder / "train.jsonl")
        return round(median(pace) * len(pace), 1) if pace else None


def read_run(folder: Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> FinishedRun:
    """Return a finished run with the overrides of its ``audit`` section.

    Raises:
        InputError: if it is not finished, its weights, data or base model are no longer those of
            the run, or an override is about anything but the audit.
    """
    for section in sorted(with_overrides({}, overrides).keys() - {"audit"}):
        raise InputError(
            f"--set {section}: an audit takes the run as it is; only keys of the section audit can "
            "be set, for example audit.max_rows=16."
        )
    if not folder.is_dir():
        raise InputError(f"{folder} is not a run directory. Give the folder of a finished run.")
    refusals.refuse_purged(folder)
    manifest.require(folder, "config.yaml")
    made_with = config_file.read(folder)[1].get("made_with") or {}
    if not (folder / "results.json").is_file():
        raise InputError(f"{folder} is not finished. Finish it: grail run {folder}")
    config = config_file.load_config(folder, overrides)
    check_attackers(config)
    inputs = read_inputs(config)
    if made_with.get("data") != inputs.digests:
        raise InputError(
            f"{folder}: the data files are not those of the run any more. Restore them, or run "
            f"it again: grail run {folder}"
        )
    identity = model_identity(config.model.name, config.adapter)
    if made_with.get("model") not in (None, identity):
        raise InputError(
            f"{folder}: model.name, {config.model.name}, holds another model than when the run "
            f"was made. Restore it, or run it again: grail run {folder}"
        )
    run = FinishedRun(folder, config, inputs, _check_weights(folder, config))
    _ = run.seconds  # a damaged log is told now
    manifest.require(folder, *_READ)
    return run


def _check_weights(folder: Path, config: Config) -> dict[str, str]:
    """Return the digests of both models' weights, if the results belong to them."""
    again = f"Run it again: grail run {folder}"
    for name in ("vanilla", "unlearned", "mask.safetensors"):
        if not (folder / name).exists():
            raise InputError(
                f"{folder}/{name} is missing; an audit needs both models of the run and the mask. "
                f"{again}"
            )
    artifacts.check(folder / "mask.safetensors")
    weights = {n: directory.sound(folder / n)["weights"] for n in ("vanilla", "unlearned")}
    models = equal_retention.model_digests(weights, config.evaluation.retain_target)
    if read_results(folder / "results.json").inputs != digest(models):
        raise InputError(
            f"{folder}: results.json is not about the models in vanilla/ and unlearned/: these "
            f"have been replaced since, or an older grail wrote it. {again}"
        )
    return weights


def read_oracle(run: FinishedRun, folder: Path) -> FinishedRun:
    """Return the run in ``folder``, or say why it is no oracle on the model and data of ``run``."""
    oracle = read_run(folder)
    if not oracle.is_oracle:
        raise InputError(
            f"--oracle: {folder} was unlearned with {oracle.config.unlearning.objective}. An "
            "oracle never saw the unlearn rows: a run with preset: exact on the same data."
        )
    if difference := _difference(run, oracle):
        raise InputError(
            f"--oracle: {folder} {difference} than {run.folder}. Make the oracle from the same "
            "YAML file with preset: exact."
        )
    return oracle


def _difference(run: FinishedRun, oracle: FinishedRun) -> str:
    """Return in what model, data or training differ; "" if in nothing."""
    settings, others = (r.config.model_dump(mode="json") for r in (run, oracle))
    for section in ("model", "data"):
        if settings[section] != others[section]:
            return f"has another section '{section}'"
    if run.config.teaches:  # else the model was not trained here
        for key in _LEARNING:
            if settings["teach"][key] != others["teach"][key]:
                return f"was trained with another teach.{key} (it would know more or less)"
    rows, other_rows = (
        {name: value for name, value in r.inputs.digests.items() if not name.startswith("general.")}
        for r in (run, oracle)
    )
    return "" if rows == other_rows else "was made with other rows"
