"""General ability before and after: both models through the harness, item by item.

What ``evaluation.general_tasks`` asks for; the ordinary evaluation is another matter.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from grail.evaluation.general.harness import Harness, build
from grail.evaluation.general.items import LocalTask, task_digests
from grail.evaluation.general.outcomes import Outcome, compare_outcomes
from grail.evaluation.values import kept_in
from grail.files import digest, write_json, write_text
from grail.model.sources import version
from grail.run.context import RunContext


def check_general(context: RunContext) -> None:
    """Load the tasks' data: what cannot be reached is refused before hours of training."""
    build([task for task in context.inputs.tasks if isinstance(task, str)])


def outcomes_of(context: RunContext, name: str, weights: str) -> list[Outcome]:
    """Ask a model everything, or read what it was asked before; nothing without tasks.

    They are kept in ``evaluation/general.NAME.json``; ``weights`` is a digest of the model's own.
    """
    tasks = context.inputs.tasks
    if not tasks:
        return []
    file, stage = f"evaluation/general.{name}.json", f"general {name}"
    settings = context.config.evaluation

    def ask() -> dict[str, Any]:
        with context.listener.stage(stage) as tick:
            context.take(name)
            harness = Harness(
                context.model,
                context.tokenizer,
                build(tasks),
                settings.batch_size,
                settings.general_max_items,
            )
            outcomes = harness.run(name, context.listener.warn, tick)
        return {"outcomes": [asdict(outcome) for outcome in outcomes]}

    found = context.kept(file, _key(context, weights), stage, ask)
    return kept_in(context.folder / file, found, "outcomes", Outcome)


def measure_general(context: RunContext, weights: Mapping[str, str]) -> None:
    """Write ``general.json`` and ``general_samples.jsonl``, or nothing without tasks.

    ``weights`` are digests of those of "vanilla" and "unlearned".
    """
    folder = context.folder
    if not context.inputs.tasks:
        if any((folder / "evaluation").glob("general.*.json")):
            context.listener.warn(
                "evaluation.general_tasks is empty now: results and report are without general "
                "tasks. What was answered is kept; set the same tasks to see it again."
            )
        return
    names = ("vanilla", "unlearned")
    asked = {name: outcomes_of(context, name, weights[name]) for name in names}
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
