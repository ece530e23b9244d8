"""Everything that can be found wrong before a model is loaded: data, names, the place to write."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grail.config.file import read, run_settings
from grail.config.merge import merge, with_overrides
from grail.config.run import Config, parse_config
from grail.data.preflight import check_samples
from grail.data.samples import Sample, data_digest, load_general, load_samples, remarks
from grail.errors import InputError, collecting
from grail.evaluation.general.harness import check_tasks
from grail.evaluation.general.items import LocalTask, load_tasks, task_digests
from grail.files import PARTIAL
from grail.localization.localizers import check_method, code_of
from grail.model.quantisation import check_quantisation
from grail.model.sources import adapter_settings, find
from grail.run.provenance import other_base
from grail.training.accelerator import check_trackers
from grail.training.eight_bits import check_eight_bits
from grail.unlearning.objectives import EXACT, make_objective

FRESH_ADAPTER = (
    "a fresh adapter on a model that is taken as it is: its B is 0, so that every A entry scores 0 "
    "and only B entries are localized. Give a trained adapter, or model.lora: null to localize the "
    "model's own weights."
)
OTHER_BASE = (
    "teach.adapter: {} names the base {}, which is not on this machine. It is put on {}: make "
    "sure that they are the same model."
)
_ROWS = ("domains", "check", "data", "general")
"""The sections that say which rows there are."""
UNFINISHED = f"config.yaml{PARTIAL}"  # all that a run leaves which is killed at its first write


@dataclass(frozen=True)
class Inputs:
    """The data of a run, read and checked.

    Attributes:
        samples: Rows of all domains and sides.
        general: Out-of-distribution rows.
        warnings: What the user should look at, though the run can go on.
        digests: SHA-256 of each ``domain.side.part``, and of each ``evaluation.task.choices``.
        tasks: The general tasks: rows of one's own, or names of lm-eval's.
    """

    samples: tuple[Sample, ...]
    general: tuple[Sample, ...]
    warnings: tuple[str, ...]
    digests: dict[str, str]
    tasks: tuple[LocalTask | str, ...] = ()


def read_inputs(config: Config) -> Inputs:
    """Read the data and check all that needs no model; refuse with every problem, one per line."""
    problems: list[str] = []
    samples: list[Sample] = []
    general: list[Sample] = []
    tasks: list[LocalTask | str] = []
    notes: list[str] = []

    def attempt(check: Callable[[], object]) -> None:
        with collecting(problems):
            check()

    attempt(lambda: samples.extend(load_samples(config)))
    attempt(lambda: general.extend(load_general(config)))
    attempt(lambda: tasks.extend(load_tasks(config.evaluation.general_tasks)))
    attempt(lambda: check_tasks(tasks))
    attempt(lambda: find(config.model.name))
    attempt(lambda: check_quantisation(config.model.quantise))
    attempt(lambda: notes.extend(check_adapter(config)))
    attempt(lambda: check_output(Path(config.output)))
    attempt(lambda: check_method(config.localization))
    attempt(lambda: check_unlearning(config))
    attempt(lambda: check_eight_bits(config.unlearning.optimizer))
    attempt(lambda: check_trackers(config.unlearning.trackers))
    findings = check_samples(samples)
    problems += [finding.text for finding in findings if finding.level == "error"]
    if problems:
        raise InputError(problems)  # each once: two checks may find the same
    notes += remarks(config)
    notes += [finding.text for finding in findings if finding.level == "warning"]
    if config.teach is None and config.model.lora and not find(config.model.name).adapter:
        notes.append(FRESH_ADAPTER)
    digests = data_digest([*samples, *general]) | task_digests(tasks)
    return Inputs(tuple(samples), tuple(general), tuple(notes), digests, tuple(tasks))


def row_problems(file: Path, overrides: Sequence[str]) -> list[str]:
    """Return what is wrong with the rows of a settings file, whatever else is wrong with it.

    Nothing, where the sections that name the rows are wrong themselves.
    """
    problems: list[str] = []
    try:
        path, raw = read(file)
        sections = with_overrides(merge(raw), overrides)
        named = {key: sections[key] for key in _ROWS if key in sections}
        config = parse_config(named | {"output": "-"}, path.absolute().parent)
    except InputError:
        return []
    samples: list[Sample] = []
    with collecting(problems):
        samples += load_samples(config)
    found = [finding.text for finding in check_samples(samples) if finding.level == "error"]
    return problems + found


def check_adapter(config: Config) -> list[str]:
    """Refuse a ``teach.adapter`` that is no PEFT folder, or that belongs on something else.

    Return a warning, if it names a base that cannot be compared with ``model.name``.
    """
    adapter, model = config.adapter, config.model.name
    if adapter is None:
        return []
    adapter_settings(Path(adapter))
    if find(model).adapter is not None:
        raise InputError(
            f"teach.adapter: model.name ({model}) is an adapter too. Give the base "
            "model as model.name."
        )
    base = other_base(model, adapter)
    return [OTHER_BASE.format(adapter, base, model)] if base else []


def knows_before(config: Config) -> bool:
    """Tell whether there is a model from before the facts were learnt.

    It is the model without its adapter, or all weights as they were before the teaching.
    """
    if config.teach is None:
        return config.model.lora is not None and find(config.model.name).adapter is not None
    return config.model.lora is not None or config.adapter is None


def check_unlearning(config: Config) -> None:
    """Refuse an objective that is unknown, that lacks its rows, or that does nothing."""
    settings = config.unlearning
    objective = make_objective(settings)
    if not settings.unlearn_weight:
        raise InputError("unlearning.unlearn_weight: 0 unlearns nothing. Give a weight above 0.")
    if "general" in objective.sides and config.general.train is None:
        raise InputError(
            "unlearning.retain_rows: general and unlearning.general_weight read the general text, "
            "but general.train is null. Give it, or use retain_rows: domain and general_weight: 0."
        )
    if both := sorted(config.domains.keys() & config.check.keys()):
        raise InputError(f"check.{both[0]}: domains has that name too. Give it another name.")
    unknown = {name for phase in settings.phases or [] for name in phase} - set(config.domains)
    if unknown:
        raise InputError(
            f"unlearning.phases: {', '.join(sorted(unknown))} is not among the domains. Allowed: "
            f"{', '.join(config.domains)}."
        )
    if any(len(set(phase)) < len(phase) for phase in settings.phases or []):
        raise InputError("unlearning.phases: a domain stands twice in one phase. Name it once.")
    if settings.teacher == "before" and not knows_before(config):
        raise InputError(
            "unlearning.teacher: before, but there is no model from before the facts were learnt: "
            "without teach, the base model itself knows them. Use suppressed or refusal."
        )
    _check_reset(config)
    if settings.objective == EXACT:
        _check_exact(config)


def _check_reset(config: Config) -> None:
    settings = config.unlearning
    if settings.reset and config.model.lora and not knows_before(config):
        raise InputError(
            "unlearning.reset: the base under a fresh adapter knows the facts, so that resetting "
            "the adapter removes nothing. Use model.lora: null, or reset: null."
        )
    if settings.reset and settings.stop:
        raise InputError(
            "unlearning.stop: its bounds compare with the model at the start of Stage 3, which a "
            "reset has harmed already. Set unlearning.stop: null, or reset: null."
        )


def _check_exact(config: Config) -> None:
    if not config.teaches:
        raise InputError(
            "unlearning.objective: exact trains the vanilla model again without the unlearn rows; "
            "that needs a model that was taught here. Give teach: true, and no teach.adapter."
        )
    if config.localization.method != "none":
        raise InputError(
            "unlearning.objective: exact starts a new model, in which there is nothing to freeze. "
            "Set localization.method: none."
        )
    settings = config.unlearning
    unread = ("phases", "general_weight", "reset", "rewrites", "guesses", "wordings", "examples")
    for key in (*unread, "stop"):
        given = getattr(settings, key)
        if given:
            raise InputError(
                f"unlearning.{key}: exact trains a new model as the section teach says, and does "
                "not read this. Leave it out."
            )


def own_code(config: Config) -> list[str]:
    """Return the digests of the files that define the user's own localizer and objective."""
    codes = list(code_of(config.localization).values())
    own = ":" in config.unlearning.objective
    return codes + ([make_objective(config.unlearning).source] if own else [])


def check_output(folder: Path) -> None:
    """Refuse an output that cannot be written, or that holds something other than a run."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InputError(f"output: {nearest} is a file. Choose another folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"output: {nearest} cannot be written to. Choose another folder.")
    if folder.is_dir():
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"output: {folder} cannot be used. Choose another folder.")
        names = [entry.name for entry in folder.iterdir()]
        others = [name for name in names if not name.startswith(".") and name != UNFINISHED]
        if others and "made_with" not in run_settings(folder):
            raise InputError(
                f"output: {folder} holds other files ({min(others)}) and no config.yaml that a "
                "run has written. Choose an empty or new folder."
            )
