"""``grail plan --shape``: where a model that is not on this machine fits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grail.reporting.tables import Table
    from grail.run.forecast.memory import ShapePlan

_NOTES = (
    "Counted from the model's shape and the rows; nothing was loaded or timed. Rows are counted "
    "with the tokenizer of model.name. Memory is that of a device, without what its allocator "
    "wastes: leave a tenth free.",
    "Scores: the files of all sides, which are read through memory maps while the sets are chosen: "
    "with less memory of the machine than that, parts of them are read again.",
    "On several devices the rows of a step are divided among them. FSDP2 divides weights, "
    "gradients and optimiser, too; without it each device holds all of them.",
)


def shape_plan(options: argparse.Namespace, listener: Any) -> tuple[dict[str, Any], Table, str]:
    """Return the ways to run a configuration on a shape: as JSON, as a table, and the last line."""
    import torch

    from grail.cli.validate import many
    from grail.config.file import is_comparison, load_config, read
    from grail.errors import InputError
    from grail.reporting.tables import Table
    from grail.run.context import RunContext
    from grail.run.forecast.memory import plan_of_shape
    from grail.run.inputs import read_inputs

    if is_comparison(read(options.config)[1]):
        raise InputError("--shape plans a run. Give the YAML file of a run, or leave --shape out.")
    for name, usual in (("devices", 1), ("memory", 80.0), ("frozen", 0.0)):
        if getattr(options, name) is None:
            setattr(options, name, usual)
    for name in ("devices", "memory", "tflops"):
        if (value := getattr(options, name)) is not None and value <= 0:
            raise InputError(f"--{name}: {value} must be above 0.")
    if not 0 <= options.frozen < 1:
        raise InputError(f"--frozen: {options.frozen} must be a share, from 0 to below 1.")
    config = load_config(options.config, options.set, options.output)
    context = RunContext(config, read_inputs(config), listener, torch.device("cpu"))
    plan = plan_of_shape(config, context.rows, options.shape, options.devices, options.frozen)
    room = options.memory * 2**30
    columns = ("", "Weights", "Scoring", "Training", "Scores", "Peak", f"{options.memory:g} GiB")
    table = Table(
        f"Memory of each of {many(options.devices, 'device')}, GiB",
        columns,
        tuple(
            (
                f"way {number}" if way.changes else "as configured",
                *(f"{size / 2**30:.1f}" for size in (way.weights, way.score, way.train)),
                *(f"{size / 2**30:.1f}" for size in (way.host, way.peak)),
                "fits" if way.peak <= room else "does not fit",
            )
            for number, way in enumerate(plan.ways)
        ),
    )
    ways = [f"Way {n}: {' '.join(way.changes)}" for n, way in enumerate(plan.ways) if way.changes]
    notes = [*ways, *_NOTES, *([f"Left out: {plan.refused}"] if plan.refused else [])]
    notes.append(_work(plan, options))
    return {**plan.as_json(), "notes": notes}, table, _advice(plan, room)


def _work(plan: ShapePlan, options: argparse.Namespace) -> str:
    from grail.cli.plan import number, span
    from grail.cli.validate import many

    text = "; ".join(f"{name} {number(value)}FLOP" for name, value in plan.flops.items())
    if options.tflops is None:
        return f"Work: {text}. Give --tflops for times. Evaluation and audit come on top."
    total = sum(plan.flops.values()) / (options.tflops * 1e12 * options.devices)
    rate = f"at {options.tflops:g} TFLOP/s on each of {many(options.devices, 'device')}"
    return f"Work: {text}: {span((total, total)).split('-')[-1]} {rate}."


def _advice(plan: ShapePlan, room: float) -> str:
    from grail.cli.plan import number

    what = f"{number(plan.shape.parameters)} parameters, {number(plan.shape.trainable)} trainable"
    fitting = [way for way in plan.ways if way.peak <= room]
    if not fitting:
        return (
            f"{what}: fits in no way listed. Use more devices or an adapter (model.lora), a "
            "smaller unlearning.batch_size or importance.batch_tokens, or importance.memory_gib."
        )
    way = min(fitting, key=lambda way: (len(way.changes), way.peak))
    more = " Scoring takes most of it: importance.batch_tokens lowers that." * (
        way.score > way.train
    )
    return f"{what}: fits with {' '.join(way.changes) or 'the settings as they are'}.{more}"
