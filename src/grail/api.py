"""The door for programs: runs from their files, or the stages on a model that is in memory.

For a model in memory: ``samples`` -> ``score`` -> ``localize`` -> ``unlearn`` -> ``evaluate``.
Keyword settings have the names, limits and defaults of the configuration (``grail settings``),
including ``template``, ``date`` and ``max_tokens`` of ``data``. Only ``unlearn`` changes a model.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import BaseModel

from grail.artifacts import Mask, Scores
from grail.audit.audit import audit_run
from grail.config.file import load_config
from grail.config.importance import Importance
from grail.config.localization import Localization
from grail.config.messages import checked
from grail.config.run import FULL_WEIGHTS_RATE, Config, Data, Evaluation, Unlearning, parse_config
from grail.data.readers import read_rows
from grail.data.samples import Place, Sample, grouped, samples_from
from grail.errors import InputError, did_you_mean
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.values import to_results
from grail.localization import localizers
from grail.localization.select import unrecognised
from grail.model.forward import Policy, is_adapter, trainable
from grail.model.weights import copy_weights
from grail.progress import Listener
from grail.results import Results, Unlearned, make_results, read_results
from grail.run import manifest, refusals
from grail.run.inputs import read_inputs
from grail.run.looks import looks_of, unknowing
from grail.run.memory import (
    before_in_memory,
    check_rows,
    check_trainable,
    encode_rows,
    reset_in_memory,
    rewritten_in_memory,
)
from grail.run.pipeline import Run
from grail.run.trainings import make_scorer, taught, unlearn_task
from grail.training.accelerator import make_accelerator
from grail.training.loop import Loop, LoopFiles
from grail.training.masked import check_shapes

Settings = Config | Mapping[str, Any] | Path | str
_S = TypeVar("_S", bound=BaseModel)
_DATA = ("template", "date", "max_tokens")
_SIDES, _PARTS = ("unlearn", "retain", "general"), ("train", "val")


def run(settings: Settings, listener: Listener | None = None) -> Results:
    """Do all stages of a run and return its results; what is finished on disk is not done again.

    Args:
        settings: Path of a YAML file or a run directory, or the sections as a mapping (with
            ``output``; relative paths start at the current folder), or a checked configuration.
        listener: Receives the progress of stages and warnings (default: Python's warnings).

    Raises:
        InputError: naming every problem of the configuration and the data.
        DivergenceError: if training stopped being finite; the last checkpoint stays.

    >>> results = run("erase.yaml")  # doctest: +SKIP
    >>> results.summary["train"]["unlearned"]["Avg"]  # doctest: +SKIP
    95.7
    """
    config = _config(settings)
    source = Path(settings) if isinstance(settings, (Path, str)) else None
    refusals.refuse_run(config, source)
    stages = Run(config, inputs := read_inputs(config), listener)
    for warning in inputs.warnings:
        stages.listener.warn(warning)
    stages.through()
    return read_results(Path(config.output) / "results.json")


def audit(
    folder: Path | str,
    oracle: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Attack a finished run's model and return the content of ``audit.json``.

    Args:
        folder: The run directory; its own files stay as they are.
        oracle: Directory of a run of preset ``exact`` on the same model and data.
        settings: Keys of the ``audit`` section, nested or dotted, over those of the run:
            ``{"attacks": ["quantise"], "relearn": {"steps": [5]}}``.
        listener: Receives the progress of the attacks.

    Raises:
        InputError: if the run is not finished, a setting is wrong, or the oracle does not fit.

    >>> audit("runs/erase")["sentences"]  # doctest: +SKIP
    """
    oracle = None if oracle is None else Path(oracle)
    return audit_run(Path(folder), oracle, {"audit": dict(settings or {})}, listener)


def samples(
    source: Path | str | Iterable[Mapping[str, Any]],
    side: str,
    domain: str = "domain",
    part: str = "train",
) -> list[Sample]:
    """Return the rows of one side of a domain, read from a file or given as mappings.

    Args:
        source: A file, ``hub:OWNER/NAME``, or rows such as ``{"prompt": ..., "completion": ...}``.
        side: "unlearn", "retain", or "general" (out-of-distribution text).
        domain: Name of the domain.
        part: "train", or "val" (measured only).

    Raises:
        InputError: listing the malformed rows, without their text.

    >>> samples([{"prompt": "Who?", "completion": "Mara."}], side="unlearn")[0].key
    'domain.unlearn.train.0'
    """
    for name, value, allowed in (("side", side, _SIDES), ("part", part, _PARTS)):
        if value not in allowed:
            hint = did_you_mean(value, allowed)
            raise InputError(f"samples: {name} is '{value}'.{hint} Allowed: {', '.join(allowed)}.")
    place = Place("general", "general", part) if side == "general" else Place(domain, side, part)
    if isinstance(source, (Path, str)):
        return samples_from(read_rows(str(source), place), place, str(source))
    rows = [(f"row {number} (from 0)", row) for number, row in enumerate(source)]
    return samples_from(rows, place, "samples")


def score(
    model: Policy, tokenizer: Any, rows: Sequence[Sample], seed: int = 0, **settings: Any
) -> dict[tuple[str, str], Scores]:
    """Score every trainable parameter on the train rows of each side (Stage 1; paper, Eq. 3).

    Args:
        model: A transformers model or a PEFT model; what requires gradients is scored.
        tokenizer: Its tokenizer.
        rows: Samples of any number of domains and sides.
        seed: Seed of the random labels.
        settings: Keys of the ``importance`` section.

    Returns:
        (domain, side) -> its scores.

    >>> scores = score(model, tokenizer, rows, trials=1)
    >>> sorted(scores)
    [('domain', 'retain'), ('domain', 'unlearn')]
    """
    importance, data = _sections(settings, "importance", Importance)
    encoded = encode_rows(model, tokenizer, rows, data)
    check_trainable(model)
    scorer = make_scorer(model, tokenizer, importance, seed)
    scorer.check()
    train = [row for row in encoded if row.part == "train" and row.side != "general"]
    sides = grouped(train, lambda row: (row.domain, row.side))
    return {side: scorer.score(members) for side, members in sides.items()}


def localize(
    scores: Mapping[tuple[str, str], Scores],
    method: str | Callable[..., Mask] = "grail",
    model: Policy | None = None,
    seed: int = 0,
    **settings: Any,
) -> Mask:
    """Return the entries that must not move (Stage 2; paper, Eq. 4 and Algorithm 1).

    Args:
        scores: (domain, side) -> scores, both sides of every domain.
        method: Name of a localizer, or a function from ``Evidence`` to a ``Mask``.
        model: The scored model; needed where the method reads weights (``magnitude``).
        seed: Seed of what the method draws.
        settings: Keys of the ``localization`` section.

    >>> localize(scores, k_op_ur=0.2).counts()["frozen"] > 0
    True
    """
    both = [{(domain, "unlearn"), (domain, "retain")} for domain, _ in scores]
    if not scores or set(scores) != set().union(*both):
        raise InputError("localize: needs the scores of both sides of every domain.")
    function = None if isinstance(method, str) else method
    named = {"method": method} if isinstance(method, str) else {}
    section = checked(Localization, named | settings, "localization")

    def weights() -> dict[str, Any]:
        if model is None:
            raise InputError(f"localize: {method} reads the model's weights. Pass model=.")
        return {name: weight.cpu() for name, weight in copy_weights(model).items()}

    if told := unrecognised(section.layer, next(iter(scores.values())).mean_abs):
        warnings.warn(told, stacklevel=2)
    return localizers.make_mask(dict(scores), section, seed, weights, function)[0]


def unlearn(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Sample],
    mask: Mask | None = None,
    seed: int = 0,
    **settings: Any,
) -> Unlearned:
    """Train ``model`` to lose the unlearn rows and keep the retain rows (Stage 3; Eqs. 5 to 7).

    Args:
        model: The model; it is changed.
        tokenizer: Its tokenizer.
        rows: Samples; train rows are used.
        mask: Entries that must not move, equal to the bit afterwards; None: all may move.
        seed: Fixes the order of rows.
        settings: Keys of the ``unlearning`` section; ``objective`` names one, or a function of
            one's own as "package.module:function".

    Raises:
        DivergenceError: if a loss or gradient stopped being finite.
        RuntimeError: if a frozen entry moved after all.

    >>> unlearn(model, tokenizer, rows, mask=localize(scores), epochs=2).proof["changed"]
    0
    """
    if not is_adapter(model):
        settings = {"learning_rate": FULL_WEIGHTS_RATE} | settings
    unlearning, data = _sections(settings, "unlearning", Unlearning)
    encoded, by_side = encode_rows(model, tokenizer, rows, data), mask is not None and mask.by_side
    check_trainable(model)
    check_rows(unlearning, encoded)
    if mask is not None:
        check_shapes(trainable(model), mask)
    before = before_in_memory(model, unlearning, seed)
    written = rewritten_in_memory(model, tokenizer, encoded, unlearning, before, seed)
    plain, steps = unlearn_task(model, tokenizer, encoded + written.rows, unlearning, seed, by_side)
    known = unknowing(model, before, encoded, unlearning, seed)
    looks = looks_of(model, encoded, tokenizer.pad_token_id, None, unlearning.stop, known)
    reset_in_memory(model, unlearning, mask, before, seed)
    was_training, task = model.training, taught(plain, unlearning, before, written.examples)
    with TemporaryDirectory() as folder:
        files = LoopFiles(Path(folder) / "train.jsonl", Path(folder) / "checkpoint", "")
        try:
            model.train()
            loop = Loop(trainable(model), task, mask, steps, make_accelerator())
            proof = loop.run(files, looks=looks)
        finally:
            model.train(was_training)
        lines = files.log.read_text(encoding="utf-8").splitlines()
    return Unlearned(tuple(json.loads(line) for line in lines), proof)


def evaluate(
    model: Policy, tokenizer: Any, rows: Sequence[Sample], name: str = "model", **settings: Any
) -> Results:
    """Measure a model on rows: US, RS, NLL, PPL, ES, Prob, ROUGE-L of greedy generations.

    Args:
        model: The model; it is not changed.
        tokenizer: Its tokenizer.
        rows: Samples of any domain, side and part.
        name: What the results call the model.
        settings: ``generate``, ``batch_size``, ``max_new_tokens``, ``min_k`` of ``evaluation``.

    >>> results = evaluate(model, tokenizer, rows, generate=False)
    >>> sorted(results.summary["train"]["model"])
    ['Avg', 'HS']
    """
    keys = ("generate", "batch_size", "max_new_tokens", "min_k")
    if others := settings.keys() - {*keys, *_DATA}:
        raise InputError(f"evaluate: {min(others)} is not read here. Allowed: {', '.join(keys)}.")
    evaluation, data = _sections(settings, "evaluation", Evaluation)
    evaluator = Evaluator(model, tokenizer, **{key: getattr(evaluation, key) for key in keys})
    limit = evaluation.max_new_tokens if evaluation.generate else None
    values = evaluator.run(name, encode_rows(model, tokenizer, rows, data, limit))
    return make_results(to_results(values), {}, "")


def _config(settings: Settings) -> Config:
    if isinstance(settings, Config):
        return settings
    if isinstance(settings, Mapping):
        return parse_config(dict(settings), str(Path.cwd()))
    manifest.require_settings(Path(settings))
    return load_config(Path(settings), [])


def _sections(settings: dict[str, Any], name: str, section: type[_S]) -> tuple[_S, Data]:
    """Check keyword settings: those of ``data`` apart from those of the stage's section."""
    data = {key: settings[key] for key in _DATA if key in settings}
    others = {key: value for key, value in settings.items() if key not in data}
    return checked(section, others, name), checked(Data, data, "data")
