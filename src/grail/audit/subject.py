"""Finished runs that an audit reads: the one that is audited, and the oracle beside it.

Nothing in their folders is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grail.config import file as config_file
from grail.config.merge import with_overrides
from grail.config.run import Config
from grail.errors import InputError
from grail.evaluation.equal_retention import model_digests
from grail.files import digest
from grail.results import read_results
from grail.run import directory
from grail.run.inputs import Inputs, read_inputs
from grail.run.provenance import model_identity
from grail.unlearning.objectives import EXACT

MODELS = ("vanilla", "unlearned")

TEACHING = {"epochs", "learning_rate", "batch_size", "until", "include_val", "max_grad_norm"}
"""Settings of ``vanilla`` that say how well a model learns what it is shown."""


@dataclass(frozen=True)
class Subject:
    """A finished run: its folder, its settings, its data, and the digests of its two models."""

    folder: Path
    config: Config
    inputs: Inputs
    weights: dict[str, str]

    @property
    def is_oracle(self) -> bool:
        """Whether its unlearned model never saw the unlearn rows."""
        return self.config.unlearning.objective == EXACT


def finished(folder: Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Subject:
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
    _, raw = config_file.read(folder)
    if not (folder / "results.json").is_file():
        raise InputError(f"{folder} is not finished. Run it to its end: grail run {folder}")
    config = config_file.load_config(folder, overrides)
    inputs = read_inputs(config)
    _check_origin(folder, raw.get("made_with") or {}, config, inputs)
    return Subject(folder, config, inputs, _models(folder, config))


def _models(folder: Path, config: Config) -> dict[str, str]:
    """Return the digests of the two models' weights, if results and mask are theirs."""
    again = f"Make it again: grail run {folder}"
    for name in (*MODELS, "mask.safetensors"):
        if not (folder / name).exists():
            raise InputError(
                f"{folder}/{name} is missing; an audit needs both models of the run and the mask. "
                f"{again}"
            )
    weights = {name: directory.sound(folder / name)["weights"] for name in MODELS}
    about = digest(model_digests(weights, config.evaluation.retain_target))
    if read_results(folder / "results.json").inputs != about:
        raise InputError(
            f"{folder}: results.json is not about the models in vanilla/ and unlearned/; others "
            f"have been put there since, or it is of an older grail. {again}"
        )
    return weights


def _check_origin(folder: Path, made: Mapping[str, Any], config: Config, inputs: Inputs) -> None:
    """Refuse data and a base model that are not those of the run; ``made`` says what it had."""
    if made.get("data") != inputs.digests:
        raise InputError(
            f"{folder}: the data files are not those of the run any more. Put them back, or run "
            f"it again: grail run {folder}"
        )
    if made.get("model") not in (None, model_identity(config.model.name)):
        raise InputError(
            f"{folder}: model.name, {config.model.name}, holds another model than when the run "
            f"was made. Put it back, or run it again: grail run {folder}"
        )


def oracle_for(subject: Subject, folder: Path) -> Subject:
    """Return the run of objective ``exact`` that was made on the same model and data.

    Raises:
        InputError: saying why the run in ``folder`` cannot be the oracle of ``subject``.
    """
    oracle = finished(folder)
    if not oracle.is_oracle:
        raise InputError(
            f"--oracle: {folder} was unlearned with {oracle.config.unlearning.objective}. An "
            "oracle never saw the unlearn rows: a run with preset: exact on the same data."
        )
    for section in ("model", "data"):
        if _section(oracle, section) != _section(subject, section):
            raise InputError(
                f"--oracle: {folder} has another section '{section}' than {subject.folder}. Make "
                "the oracle from the same YAML file with preset: exact."
            )
    other = _taught_otherwise(subject, oracle)
    if other:
        raise InputError(
            f"--oracle: {folder} was taught with another vanilla.{other} than {subject.folder}: it "
            "would know its rows better or worse for that alone. Make the oracle from the same "
            "YAML file with preset: exact."
        )
    if _rows(oracle) != _rows(subject):
        raise InputError(
            f"--oracle: {folder} was made with other rows than {subject.folder}. Make the oracle "
            "from the same YAML file with preset: exact."
        )
    return oracle


def _section(subject: Subject, name: str) -> object:
    return subject.config.model_dump(mode="json")[name]


def _taught_otherwise(subject: Subject, oracle: Subject) -> str | None:
    """Return a setting in which the two trainings differ; a model taken as it is had none here."""
    vanilla = subject.config.vanilla
    if vanilla.skip or vanilla.adapter is not None:
        return None
    pairs = (vanilla.model_dump(), oracle.config.vanilla.model_dump())
    return next((k for k in sorted(TEACHING) if pairs[0][k] != pairs[1][k]), None)


def _rows(subject: Subject) -> dict[str, str]:
    return {n: d for n, d in subject.inputs.digests.items() if not n.startswith("general.")}
