"""How cost grows: with rows, with their length, with domains, and with the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from grail.errors import InputError
from grail.importance.score import Scorer
from races import floors, scoring, training
from races.clock import Way, medians, race, ratio
from races.outcome import Outcome
from races.plan import Plan
from races.subjects import Field, Subject, field_of
from races.worker import Run, alone

Ready = Callable[..., Way]


def run(plan: Plan) -> Outcome:
    """Grow one thing at a time, each size in a process of its own; then race models of sizes."""
    outcome = Outcome("growth")
    subject = Subject(plan.growth_model, plan.precision, plan.device)
    for stage, ready in (("scoring", ready_to_score), ("training", ready_to_train)):
        _grow(outcome, f"{stage}, rows", plan, ready, {n: (subject, plan, n) for n in plan.sizes})
        few = plan.growing
        longer = {n: (subject, plan, few, 1, n) for n in plan.times}
        _grow(outcome, f"{stage}, length of rows", plan, ready, longer)
        domains = {n: (subject, plan, few, n) for n in plan.times}
        _grow(outcome, f"{stage}, domains", plan, ready, domains)
    for name in plan.shapes:
        for full in (False, True):
            _model(Subject(name, plan.precision, plan.device, full), plan, outcome)
    if plan.device == "cpu":
        outcome.note("models of 1B and 7B, and kernels, are measured with --device cuda")
    return outcome


def ready_to_score(
    subject: Subject, plan: Plan, count: int, domains: int = 1, factor: int = 1
) -> Way:
    """Return Stage 1 over ``count`` rows of each domain, side after side as a run does it."""
    field = field_of(subject, plan.data, count, domains, factor)
    own = scoring.scorer(field)
    own.score(field.rows[:1])

    def way() -> int:
        sides = sorted(field.rows, key=lambda row: (row.domain, row.side))
        for _, rows in groupby(sides, key=lambda row: (row.domain, row.side)):
            own.score(list(rows))
        return sum(len(row.ids) for row in field.rows)

    return way


def ready_to_train(
    subject: Subject, plan: Plan, count: int, domains: int = 1, factor: int = 1
) -> Way:
    """Return an epoch of Stage 3 over ``count`` rows of each domain."""
    field = field_of(subject, plan.data, count, domains, factor)
    settings = training.settings_of(plan.batch)
    warm = Field(subject, field.model, field.tokenizer, field.samples[:2], factor)
    start = field.start()
    training.by_loop(warm, settings)
    field.put(start)

    def way() -> int:
        training.by_loop(field, settings)
        return sum(len(row.ids) for row in field.rows)

    return way


def _grow(
    outcome: Outcome, what: str, plan: Plan, ready: Ready, sizes: Mapping[int, Sequence[Any]]
) -> None:
    """Run every size alone; keep time and memory, and how they compare with the smallest."""
    runs = {n: alone(ready, *given, device=plan.device) for n, given in sizes.items()}
    lines = [
        {"size": n, "tokens": r.gave, "seconds": r.seconds, "extra_gib": r.extra_gib}
        for n, r in runs.items()
    ]
    outcome.add(what, model=plan.growth_model, precision=plan.precision, sizes=lines)
    smallest, largest = min(runs), max(runs)
    times = f"{largest} against {smallest}"
    pace = _per_token(runs[largest]) / _per_token(runs[smallest])
    outcome.rate(f"{what}, {times}: seconds per token", pace)
    small, large = runs[smallest].extra_gib, runs[largest].extra_gib
    if small and large is not None:
        outcome.rate(f"{what}, {times}: memory", large / small)


def _per_token(found: Run) -> float:
    return found.seconds / found.gave


def _model(subject: Subject, plan: Plan, outcome: Outcome) -> None:
    """Race scoring against a bare pass, beside what the machine could do; a model may not fit."""
    trained = "full weights" if subject.full else "LoRA"
    try:
        _race_model(subject, trained, plan, outcome)
    except torch.OutOfMemoryError:
        outcome.note(f"{subject.name}, {trained}: does not fit into memory")
    if subject.device == "cuda":
        torch.cuda.empty_cache()


def _race_model(subject: Subject, trained: str, plan: Plan, outcome: Outcome) -> None:
    field = field_of(subject, plan.data, plan.growing)
    own, rows = scoring.scorer(field), field.rows

    def bare() -> None:
        scoring.bare_pass(field, rows, own)

    ways: dict[str, Way] = {"bare pass": bare}
    for name, made in _scorers(field, outcome).items():
        ways[name] = lambda made=made: made.score(rows)
    batches = len(scoring.copies_of(rows, own))
    work = floors.work_of(field.model, batches, bare)  # warms up
    for way in ways.values():
        way()
    seconds = race(ways, plan.repeats)
    dtype = getattr(torch, subject.dtype)
    pace = floors.pace_of(subject.device, dtype, 4096 if subject.device == "cuda" else 512)
    least = pace.seconds(work.flops, work.bytes)
    outcome.add(
        "model",
        model=subject.name,
        trained=trained,
        precision=subject.dtype,
        weights=sum(p.numel() for p in field.model.parameters()),
        samples=len(rows),
        seconds=seconds,
        floor={"flops": work.flops, "bytes": work.bytes, "seconds": least},
        machine_pace={"flops_per_second": pace.flops, "bytes_per_second": pace.bytes},
    )
    for name in [name for name in ways if name != "bare pass"]:
        label = f"{subject.name}, {trained}"
        outcome.rate(f"{label}: pace of the bare pass, {name}", ratio(seconds, "bare pass", name))
        share = least / medians(seconds)[name]
        outcome.rate(f"{label}: share of what the machine could do, {name}", share)


def _scorers(field: Field, outcome: Outcome) -> dict[str, Scorer]:
    """Return grail's scorer; with full weights on CUDA one for each kernel, where it has any."""
    if not (field.subject.full and field.subject.device == "cuda"):
        return {"grail": scoring.scorer(field)}
    try:
        return {name: scoring.scorer(field, kernel=name) for name in ("triton", "bmm")}
    except InputError:
        outcome.note("importance.kernel is left out: this grail does not know it")
        return {"grail": scoring.scorer(field)}
