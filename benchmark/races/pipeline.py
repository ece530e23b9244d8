"""``grail run`` from start to finish against the pipeline made of the naive parts."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from machine import rows_of

from grail.cli import main as cli
from grail.config import file as config_file
from grail.config.run import Config
from grail.data.labels import RandomLabels
from grail.localization.localizers import make_mask
from grail.model.forward import trainable
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.inputs import read_inputs
from grail.run.trainings import unlearn_training, vocabulary
from grail.unlearning.task import UnlearnTask
from races import naive, trainer
from races.outcome import Outcome
from races.plan import Plan
from races.subjects import FILES, PACKAGED, Subject, source_of, tokenizer_of
from races.worker import start_to_finish


def run(plan: Plan) -> Outcome:
    """Race the two on the same rows, with the same vanilla model; show both tables."""
    outcome = Outcome("pipeline")
    seconds: dict[str, list[float]] = {"grail": [], "naive": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = prepared(plan, folder)
        for number in range(plan.pipeline_repeats):
            for name, work in (("grail", by_grail), ("naive", by_parts)):
                own = folder / f"{name}-{number}"
                seconds[name].append(start_to_finish(work, config, own, fresh=plan.fresh))
        tables = tables_of(folder / "grail-0", folder / "naive-0")
    rounds = zip(seconds["naive"], seconds["grail"], strict=True)
    outcome.rate("naive / grail", statistics.median(a / b for a, b in rounds))
    outcome.add("start to finish", rows_of_each_side=plan.pipeline, seconds=seconds, tables=tables)
    return outcome


def prepared(plan: Plan, folder: Path) -> Path:
    """Write the configuration, train the vanilla model that both start from; return the file."""
    config, vanilla = folder / "run.yaml", folder / "vanilla"
    settings = _settings(plan, _model(plan, folder))
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    start_to_finish(_vanilla, config, vanilla, fresh=plan.fresh)
    settings["teach"] = {"adapter": str(vanilla / "vanilla")}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return config


def tables_of(ours: Path, theirs: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return {"vanilla" or "unlearned": {place and metric: {"grail", "naive"}}}."""
    found = json.loads((theirs / "results.json").read_text(encoding="utf-8"))
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for model, numbers in found.items():
        rows = rows_of(ours / "results.json", model)
        tables[model] = {
            name: {"grail": rows[name], "naive": value} for name, value in numbers.items()
        }
    return tables


def by_grail(config: Path, folder: Path) -> None:
    """Do what the command line does."""
    _command("run", config, folder)


def by_parts(config: Path, folder: Path) -> None:
    """Score with the naive loop, train with the Trainer, measure one row at a time.

    What is no matter of speed is grail's: reading the rows, choosing the mask from the scores, and
    which rows stand in which step.
    """
    settings = config_file.load_config(config, [])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with_rows = RunContext(settings, read_inputs(settings), NullListener(silent=True), device)
    model = with_rows.model
    before = _measured(with_rows)
    labels = _labels(with_rows)
    scores = {
        place: naive.scores(model, rows, labels, settings.importance.trials)
        for place, rows in with_rows.sides().items()
    }
    mask, _ = make_mask(scores, settings.localization, settings.seed, dict)
    handles = trainer.freeze(model, mask.frozen)
    task, _ = unlearn_training(with_rows, mask.by_side)
    assert isinstance(task, UnlearnTask), "the objective is not exact"
    steps = [step for epoch in range(settings.unlearning.epochs) for step in task.plan(epoch)]
    folder.mkdir()
    pad = with_rows.tokenizer.pad_token_id
    model.train()
    trainer.train(model, steps, settings.unlearning, pad, folder / "trainer")
    for handle in handles:
        handle.remove()
    torch.save({n: p.detach().cpu() for n, p in trainable(model).items()}, folder / "weights.pt")
    results = {"vanilla": before, "unlearned": _measured(with_rows)}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def _measured(with_rows: RunContext) -> dict[str, float]:
    rows, how = with_rows.rows, with_rows.config.evaluation
    found = naive.values(with_rows.model, with_rows.tokenizer, rows, how)
    return naive.table(rows, found)


def _labels(with_rows: RunContext) -> RandomLabels:
    config: Config = with_rows.config
    return RandomLabels(
        vocabulary(with_rows.model, with_rows.tokenizer),
        config.importance.substitution,
        config.label_seed,
    )


def _vanilla(config: Path, folder: Path) -> None:
    _command("vanilla", config, folder)


def _command(name: str, config: Path, folder: Path) -> None:
    if code := cli.main([name, str(config), "--output", str(folder)]):
        raise SystemExit(code)


def _settings(plan: Plan, model: str) -> dict[str, Any]:
    """Return the paper's objective, unbounded, as the Trainer can follow it."""
    sides = {side: {"train": source_of(plan.data, side)} for side in FILES}
    return {
        "model": {"name": model},
        "domains": {"privacy": sides},
        "data": {"template": "plain", "max_rows": plan.pipeline},
        "general": {"train": None},
        "teach": {"epochs": plan.vanilla_epochs, "include_val": False},
        "unlearning": {
            "objective": "ascent_descent",
            "epochs": 2,
            "max_token_nll": None,
            "until": None,
            "schedule": "constant",
            "batch_size": min(plan.batch, plan.pipeline),
        },
        "evaluation": {"max_new_tokens": plan.new_tokens},
        "output": "run",
    }


def _model(plan: Plan, folder: Path) -> str:
    """Return the model's name; one of random weights is put into a folder first."""
    if plan.model == PACKAGED:
        return plan.model
    subject = Subject(plan.model, "float32", "cpu", full=True)
    place = folder / "model"
    subject.policy().save_pretrained(place)  # type: ignore[operator]
    tokenizer_of(subject).save_pretrained(place)
    return str(place)
