"""A finished run, opened to be measured again."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from grail.config.file import load_config
from grail.data.encode import Encoded
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.values import to_results
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.inputs import read_inputs


def opened(folder: Path) -> RunContext:
    """Return a run's model, tokenizer and rows, on the CPU; the folder is only read."""
    config = load_config(folder, [])
    return RunContext(config, read_inputs(config), NullListener(True), torch.device("cpu"))


def knows(context: RunContext, rows: Sequence[Encoded]) -> dict[str, float]:
    """Return the percent of answer tokens that the model gets right, by "SIDE PART".

    Each is the mean over the domains; "general NLL" is in nats a token.
    """
    evaluator = Evaluator(context.model, context.tokenizer, generate=False)
    found: dict[str, list[float]] = {}
    for row in to_results(evaluator.run("", rows)):
        if row.metric in ("US", "RS"):
            right = 100 - row.value if row.metric == "US" else row.value
            found.setdefault(f"{row.side} {row.part}", []).append(right)
        elif (row.side, row.metric) == ("general", "NLL"):
            found["general NLL"] = [row.value]
    return {name: statistics.fmean(values) for name, values in found.items()}
