"""A finished run, opened to be measured again, and what a model knows in a few numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import torch

from grail.config.file import load_config
from grail.progress import NullListener
from grail.results import Result
from grail.run.context import RunContext
from grail.run.inputs import read_inputs


def opened(folder: Path) -> RunContext:
    """Return a run's model, tokenizer and rows, on the CPU; the folder is only read."""
    config = load_config(folder, [])
    return RunContext(config, read_inputs(config), NullListener(True), torch.device("cpu"))


def knows(rows: Iterable[Result]) -> dict[str, float]:
    """Return the percent of answer tokens that a model gets right, by "SIDE PART".

    Each is the mean over the domains; "general NLL" is in nats a token.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.metric in ("US", "RS"):
            right = 100 - row.value if row.metric == "US" else row.value
            found.setdefault(f"{row.side} {row.part}", []).append(right)
        elif (row.side, row.metric) == ("general", "NLL"):
            found["general NLL"] = [row.value]
    return {name: statistics.fmean(values) for name, values in found.items()}
