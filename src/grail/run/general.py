"""General ability before and after: both models through the harness, item by item.

What ``evaluation.general_tasks`` asks for; the ordinary evaluation is another matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grail.evaluation.general.harness import Harness, build
from grail.evaluation.general.items import LocalTask, task_digests
from grail.evaluation.general.outcomes import Outcome, compare_outcomes
from grail.evaluation.values import kept_in
from grail.files import cached, digest, write_json, write_text
from grail.model.sources import version
from grail.run.context import RunContext

Take = Callable[[str], None]
"""Puts the weights of the named model into the run's model."""


def check_general(context: RunContext) -> None:
    """Load the tasks' data, so that what cannot be reached is known before hours of training.

    Raises:
        InputError: naming the task.
    """
    build([task for task in context.inputs.tasks if isinstance(task, str)])


def outcomes_of(
    folder: Path, context: RunContext, name: str, weights: str, take: Take
) -> list[Outcome]:
    """Ask one model everything, or take what it was asked before; nothing without tasks.

    Args:
        folder: The run directory; ``evaluation/general.NAME.json`` is kept in it.
        context: The run's model, tokenizer and tasks.
        name: "vanilla" or "unlearned".
        weights: Digest of that model's weights.
        take: Puts them into the model, where they are needed.
    """
    tasks = context.inputs.tasks
    if not tasks:
        return []
    path, key = folder / "evaluation" / f"general.{name}.json", _key(context, weights)
    settings = context.config.evaluation

    def ask() -> dict[str, Any]:
        with context.listener.stage(f"general {name}") as tick:
            take(name)
            harness = Harness(
                context.model,
                context.tokenizer,
                build(tasks),
                settings.batch_size,
                settings.general_max_items,
            )
            outcomes = harness.run(name, context.listener.warn, tick)
        return {"outcomes": [asdict(outcome) for outcome in outcomes]}

    heard = context.listener
    found = cached(path, key, ask, lambda: heard.skipped(f"general {name}"), heard.warn)
    return kept_in(path, found, "outcomes", Outcome)


def measure_general(
    folder: Path, context: RunContext, weights: Mapping[str, str], take: Take
) -> None:
    """Write ``general.json`` and ``general_samples.jsonl``, or nothing without tasks.

    Args:
        folder: The run directory.
        context: The run's model, tokenizer and tasks.
        weights: Digests of the weights of "vanilla" and "unlearned".
        take: Puts the weights of a model into the run's model.
    """
    if not context.inputs.tasks:
        if any((folder / "evaluation").glob("general.*.json")):
            context.listener.warn(
                "evaluation.general_tasks is empty now: results and report are without general "
                "tasks. What was answered is kept; set the same tasks to see it again."
            )
        return
    names = ("vanilla", "unlearned")
    asked = {name: outcomes_of(folder, context, name, weights[name], take) for name in names}
    lines = [json.dumps(o.as_json(name)) + "\n" for name, own in asked.items() for o in own]
    write_text(folder / "general_samples.jsonl", "".join(lines))
    about = {
        "inputs": digest([_key(context, weights[name]) for name in names]),
        "harness": f"lm-eval {version('lm-eval')}",
        **compare_outcomes(asked["vanilla"], asked["unlearned"]),
    }
    write_json(folder / "general.json", about)


def _key(context: RunContext, weights: str) -> str:
    """Digest what one model's outcomes depend on."""
    settings = context.config.evaluation
    return context.key(
        "model",
        weights=weights,
        tasks=[t.name if isinstance(t, LocalTask) else t for t in context.inputs.tasks],
        rows=task_digests(context.inputs.tasks),
        most=settings.general_max_items,
        batch_size=settings.batch_size,
        harness=version("lm-eval"),
    )
