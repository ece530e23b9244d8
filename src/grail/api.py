"""The main job and its audit, for programs; the command line is the same with words around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.audit import audit as auditing
from grail.config.file import load_config
from grail.config.run import Config, parse_config
from grail.progress import Listener
from grail.results import Results
from grail.run import directory
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run

Given = Config | Mapping[str, Any] | Path | str


def run(settings: Given, listener: Listener | None = None) -> Results:
    """Do all stages and return the results; what is finished on disk is not done again.

    Args:
        settings: A checked configuration or its sections as a mapping (with ``output``; relative
            paths are looked up in the current folder), or the path of a YAML file or run directory.
        listener: Who hears of stages, their progress and warnings (default: Python's warnings).

    Raises:
        InputError: naming every problem of the configuration and the data; where the output is a
            comparison's.
        DivergenceError: if training stopped being finite; the last checkpoint stays.
    """
    config = _config(settings)
    directory.refuse_run(config, Path(settings) if isinstance(settings, (Path, str)) else None)
    inputs = read_inputs(config)
    made = Run(config, inputs, listener)
    for warning in inputs.warnings:
        made.listener.warn(warning)
    made.through()
    return made.results


def audit(
    folder: Path | str,
    oracle: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Attack a finished run's model, and return what ``audit.json`` then holds.

    Args:
        folder: The run directory; its own files stay as they are.
        oracle: The directory of a run of preset ``exact`` on the same model and data.
        settings: Keys of the ``audit`` section, nested or dotted, over those of the run:
            ``{"attacks": ["quantise"], "relearn": {"steps": [5]}}``; others keep their values.
        listener: Who hears of the attacks and their progress.

    Raises:
        InputError: if the run is not finished, a setting is wrong, or the oracle is not one of
            this run.
    """
    beside = None if oracle is None else Path(oracle)
    return auditing.audit_run(Path(folder), beside, {"audit": settings or {}}, listener)


def _config(settings: Given) -> Config:
    if isinstance(settings, Config):
        return settings
    if isinstance(settings, Mapping):
        return parse_config(dict(settings))
    return load_config(Path(settings))
