"""Scoring: grail's batched way, the naive loop, ordinary passes, vmap; pace and memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from grail.artifacts import Scores
from grail.config.run import Importance
from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores
from grail.model.answers import answers_of
from grail.model.forward import trainable
from races import naive
from races.clock import Way, medians, race, ratio
from races.outcome import Outcome
from races.plan import Plan
from races.subjects import Field, Subject, field_of
from races.worker import Worker, alone

AGREES = 1e-3
"""Relative difference between ways that rounding explains in float32 (largest entry's scale)."""

PASS, PLAIN = "same bare pass", "padded pass"
"""The batches of grail's scoring through forward and backward alone, by grail's own reading of the
answers; and as scripts do it: padded to the longest row, with all logits."""

PROCESSES = 2


def run(plan: Plan) -> Outcome:
    """Race all ways in every precision."""
    outcome = Outcome("scoring")
    for dtype in plan.precisions:
        _race(plan, dtype, outcome)
    _memory(plan, plan.precision, outcome)
    if plan.device == "cpu":
        _processes(plan, outcome)
    else:
        outcome.note("two processes are not compared on one accelerator")
    return outcome


def scorer(field: Field, **settings: object) -> Scorer:
    """Return grail's scorer with these settings of its section.

    Raises:
        InputError: if the section does not know them.
    """
    try:
        made = Importance.model_validate(settings)
    except ValueError as error:
        given = ", ".join(f"importance.{key}: {value}" for key, value in settings.items())
        raise InputError(f"this grail does not know {given}") from error
    how = made.model_dump(exclude={"substitution", "seed", "checkpoint_rows"})
    return Scorer(field.model, field.labels, field.pad, **how)


def ways(field: Field, rows: Sequence[Encoded]) -> dict[str, Way]:
    """Return every way that this grail has."""
    own = scorer(field)
    found: dict[str, Way] = {
        "grail": lambda: own.score(rows),
        "naive loop": lambda: naive.scores(field.model, rows, field.labels, own.draws),
        "lean loop": lambda: scorer(field, gradients="loop").score(rows),
        PASS: lambda: bare_pass(field, rows, own),
        PLAIN: lambda: padded_pass(field, rows, own),
    }
    try:
        expected = scorer(field, labels="expected", substitution="targets")
    except InputError:
        return found
    return found | {"expected labels": lambda: expected.score(rows)}


def copies_of(rows: Sequence[Encoded], own: Scorer) -> list[list[Encoded]]:
    """Return the batches of a scorer: similar lengths together, the trials of a row adjoining."""
    groups = by_tokens(rows, own.batch_tokens, copies=own.draws)
    return [[trial for row in group for trial in own.drawn(row)] for group in groups]


def bare_pass(field: Field, rows: Sequence[Encoded], own: Scorer) -> None:
    """Leave summed gradients of the same trials: what any batched method must pay."""
    for copies in copies_of(rows, own):
        batch = collate(copies, field.pad, field.subject.device)
        answers_of(field.model, batch).nll.sum().backward()
        field.model.zero_grad(set_to_none=True)


def padded_pass(field: Field, rows: Sequence[Encoded], own: Scorer) -> None:
    """Do the same with what transformers has: its own loss over padded rows."""
    for copies in copies_of(rows, own):
        field.model(**naive.padded(copies, field.pad, field.subject.device)).loss.backward()
        field.model.zero_grad(set_to_none=True)


def by_vmap(field: Field, rows: Sequence[Encoded], own: Scorer) -> Scores:
    """Score all rows at once with torch.func: the gradients of every row are kept until the end."""
    parameters = {name: p.detach() for name, p in trainable(field.model).items()}
    trials = [trial for row in rows for trial in own.drawn(row)]
    batch = naive.padded(trials, field.pad, field.subject.device)
    given = [batch[name].view(len(rows), own.draws, -1) for name in ("input_ids", "labels")]
    each = torch.func.vmap(torch.func.grad(partial(_row_loss, field.model)), in_dims=(None, 0, 0))
    found = {name: g.float() for name, g in each(parameters, *given).items()}
    return Scores(
        {name: g.abs().mean(0).cpu() for name, g in found.items()},
        {name: g.mean(0).cpu() for name, g in found.items()},
        {name: g.square().mean(0).cpu() for name, g in found.items()},
        len(rows),
    )


def _row_loss(
    model: nn.Module, parameters: dict[str, Tensor], ids: Tensor, labels: Tensor
) -> Tensor:
    """Mean over trials of the mean token NLL; right padding is unseen without a mask."""
    logits = torch.func.functional_call(model, parameters, (), {"input_ids": ids}).logits
    targets = labels[:, 1:]
    log_p = logits[:, :-1].float().log_softmax(-1)
    nll = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    on = (targets >= 0).float()
    return ((nll * on).sum(-1) / on.sum(-1)).mean()


def _race(plan: Plan, dtype: str, outcome: Outcome) -> None:
    field = field_of(Subject(plan.model, dtype, plan.device), plan.data, plan.scoring)
    known = ways(field, field.rows)
    if dtype != plan.precision:
        del known["lean loop"]  # shown once: it takes nearly as long as the naive one
    if "expected labels" not in known:
        outcome.note("labels: expected is left out: this grail does not know it")
    agreement = _agreement(known, dtype)
    seconds = race(known, plan.repeats)
    own = scorer(field)
    tokens = own.draws * sum(len(row.ids) for row in field.rows)
    pace = {name: len(field.rows) / value for name, value in medians(seconds).items()}
    outcome.add(
        "pace",
        precision=dtype,
        samples=len(field.rows),
        tokens=tokens,
        seconds=seconds,
        samples_per_second=pace,
        largest_relative_difference=agreement,
    )
    for slow in [name for name in ("naive loop", "lean loop") if name in known]:
        outcome.rate(f"{slow} / grail, {dtype}", ratio(seconds, slow, "grail"))
    for other in (PASS, PLAIN):
        outcome.rate(f"grail's pace of the {other}, {dtype}", ratio(seconds, other, "grail"))
    if "expected labels" in known:
        value = ratio(seconds, "naive loop", "expected labels")
        outcome.rate(f"naive loop / expected labels, {dtype}", value)
    _race_vmap(plan, field, outcome)


def _agreement(known: dict[str, Way], dtype: str) -> dict[str, float]:
    """Run every way once, which warms it up, and say how far the scores are from the naive loop's.

    Raises:
        RuntimeError: if they are not the same scores in float32.
    """
    found = {name: way() for name, way in known.items()}
    reference = found["naive loop"]
    assert isinstance(reference, Scores), "the naive loop scores"
    far = {
        name: compare_scores(made, reference).worst
        for name, made in found.items()
        if isinstance(made, Scores) and name in ("grail", "lean loop")
    }
    if dtype == "float32" and max(far.values()) > AGREES:
        raise RuntimeError(f"the ways do not find the same scores: {far}")
    return far


def _race_vmap(plan: Plan, field: Field, outcome: Outcome) -> None:
    rows, own = field.rows[: plan.few], scorer(field)
    both = {"grail": lambda: own.score(rows), "vmap": lambda: by_vmap(field, rows, own)}
    dtype = field.subject.dtype
    far = compare_scores(both["vmap"](), both["grail"]()).worst
    if dtype == "float32" and far > AGREES:
        raise RuntimeError(f"vmap does not find the same scores: {far}")
    seconds = race(both, plan.repeats)
    outcome.add(
        "vmap",
        precision=dtype,
        samples=len(rows),
        seconds=seconds,
        largest_relative_difference=far,
    )
    outcome.rate(f"vmap / grail, {dtype}, {len(rows)} rows", ratio(seconds, "vmap", "grail"))


def _memory(plan: Plan, dtype: str, outcome: Outcome) -> None:
    """Measure the memory of each way in a process of its own."""
    subject = Subject(plan.model, dtype, plan.device)
    names = ["grail", "naive loop", PASS, PLAIN]
    found = {
        name: alone(ready, subject, plan, name, device=plan.device).extra_gib for name in names
    }
    outcome.add("memory", precision=dtype, samples=plan.scoring, extra_gib=found)
    if found["grail"] is None:
        outcome.note("memory is not measured on this system (needs /proc/self/clear_refs)")
        return
    for other in names[1:]:
        floor = found[other]
        if floor:
            outcome.rate(f"memory, grail / the {other}, {dtype}", found["grail"] / floor)


def ready(subject: Subject, plan: Plan, name: str, part: slice = slice(None)) -> Way:
    """Return a way with a model of its own; a short row has brought all weights into memory."""
    field = field_of(subject, plan.data, plan.scoring)
    shortest = min(field.rows, key=lambda row: len(row.ids))
    bare_pass(field, [shortest], scorer(field))
    return _silent(ways(field, field.rows[part])[name])


def _silent(way: Way) -> Way:
    """Drop what a way returns: scores need not travel between processes."""

    def run_it() -> None:
        way()

    return run_it


def _processes(plan: Plan, outcome: Outcome) -> None:
    """Race one process of two threads against two of one, each with half of the rows."""
    subject = Subject(plan.model, plan.precision, plan.device)
    whole = [Worker(ready, subject, plan, "grail", threads=PROCESSES)]
    parts = [
        Worker(ready, subject, plan, "grail", slice(i, None, PROCESSES), threads=1)
        for i in range(PROCESSES)
    ]

    def together(workers: list[Worker]) -> None:
        for worker in workers:
            worker.begin()
        for worker in workers:
            worker.end()

    one, two = "one process, two threads", "two processes, a thread each"
    both: dict[str, Way] = {one: lambda: together(whole), two: lambda: together(parts)}
    for way in both.values():
        way()
    seconds = race(both, plan.repeats)
    for worker in (*whole, *parts):
        worker.close()
    outcome.add("processes", precision=plan.precision, samples=plan.scoring, seconds=seconds)
    outcome.rate(f"{one} / {two}", ratio(seconds, one, two))
