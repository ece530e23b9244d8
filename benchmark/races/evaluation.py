"""Evaluation: grail's batched passes and generations against one row at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grail.config.run import Evaluation
from grail.data.encode import Encoded
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.metrics import mean
from grail.evaluation.values import SampleValue
from races import naive
from races.clock import Way, race, ratio
from races.outcome import Outcome
from races.plan import Plan
from races.subjects import Field, Subject, field_of

AGREES = 1e-4
"""Difference of a row's NLL between the two ways that is let pass in float32, in nats."""


def run(plan: Plan) -> Outcome:
    """Race the teacher-forced pass alone, and then with generations, in every precision."""
    outcome = Outcome("evaluation")
    for dtype in plan.precisions:
        field = field_of(Subject(plan.model, dtype, plan.device), plan.data, plan.evaluation)
        for what, generates in (("forced alone", False), ("with generations", True)):
            settings = Evaluation(generate=generates, max_new_tokens=plan.new_tokens)
            _race(field, what, settings, plan.evaluation_repeats, outcome)
    return outcome


def _race(field: Field, what: str, settings: Evaluation, repeats: int, outcome: Outcome) -> None:
    rows, dtype = field.rows, field.subject.dtype
    made: dict[str, Any] = {}
    for way in _ways(field, rows[:2], settings, made).values():
        way()  # warms up
    seconds = race(_ways(field, rows, settings, made), repeats)
    far = differences(made["grail"], made["one by one"])
    if dtype == "float32":
        check(far)
    outcome.add(what, precision=dtype, samples=len(rows), seconds=seconds, differences=far)
    name = f"one by one / grail, {dtype}" if settings.generate else f"{what}, {dtype}"
    outcome.rate(name, ratio(seconds, "one by one", "grail"))


def _ways(
    field: Field, rows: Sequence[Encoded], settings: Evaluation, made: dict[str, Any]
) -> dict[str, Way]:
    evaluator = Evaluator(
        *(field.model, field.tokenizer, settings.generate),
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
    )

    def ours() -> None:
        made["grail"] = evaluator.run("vanilla", rows)

    def theirs() -> None:
        made["one by one"] = naive.values(field.model, field.tokenizer, rows, settings)

    return {"grail": ours, "one by one": theirs}


def differences(ours: Sequence[SampleValue], theirs: Mapping[str, naive.Value]) -> dict[str, float]:
    """Return the largest difference over rows of each figure, and of the mean ROUGE-L.

    Greedy generations may part at a near tie, so that of ROUGE-L only the mean can be compared.
    """
    pairs = [(value, theirs[value.key]) for value in ours]
    found = {
        "nll": max(abs(a.nll - b.nll) for a, b in pairs),
        "accuracy": max(abs(a.accuracy - b.accuracy) for a, b in pairs),
    }
    rouges = [(a.rouge_l, b.rouge_l) for a, b in pairs if a.rouge_l is not None]
    if rouges:
        found["mean rouge_l"] = abs(mean([a - (b or 0.0) for a, b in rouges]))
    return found


def check(far: Mapping[str, float]) -> None:
    """Refuse numbers that are not the same.

    An accuracy is a share of tokens: two that differ differ by far more than float32's rounding of
    their quotient, which is all that is let pass.

    Raises:
        RuntimeError: if the NLL of a row is more than 1e-4 apart, or its accuracy differs at all.
    """
    if far["nll"] > AGREES or far["accuracy"] > 1e-6:
        raise RuntimeError(f"the two ways do not measure the same: {dict(far)}")
