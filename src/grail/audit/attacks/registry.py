"""ATTACKS: name -> what changes and how it is measured; each leaves the model as it was.

The label of a measured value is the amount of the attack: ``int8``, ``10`` steps, a share ``0.3``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial

from grail.audit.attacks import paraphrase, relearn
from grail.audit.attacks.compress import Change, compressed
from grail.audit.attacks.prune import pruned
from grail.audit.attacks.quantise import GRIDS, quantised
from grail.audit.attacks.sampling import extract_answers, sample_answers
from grail.audit.context import AuditContext
from grail.data.encode import Encoded
from grail.evaluation.equal_retention import between
from grail.evaluation.values import SampleValue
from grail.model.forward import is_adapter
from grail.model.weights import holding
from grail.progress import Tick

PLAIN = "plain"
"""The measurement without attack, and its amount."""

_MERGED = "merged"
_TWO, _THREE = ("unlearned", "oracle"), ("vanilla", "unlearned", "oracle")

States = Generator[tuple[str, tuple[Encoded, ...]]]
"""Yields (amount, rows to measure) with the model changed; undoes the change afterwards."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        kind: Its word in ``audit.attacks``; "" for the measurement without attack.
        models: The models that are attacked.
        settings: Keys of ``audit`` that its values depend on.
        run: Attacks the loaded model and returns the values, labelled with their amounts.
        why_not: Returns why the run's rows do not allow it; "" if they do.
    """

    kind: str
    models: tuple[str, ...]
    settings: tuple[str, ...]
    run: Callable[[AuditContext, Tick], list[SampleValue]]
    why_not: Callable[[AuditContext], str] = lambda _: ""


def _plain(context: AuditContext, tick: Tick) -> list[SampleValue]:
    return context.measure(PLAIN, context.rows, tick)


def _quantise(context: AuditContext, tick: Tick) -> list[SampleValue]:
    changes: dict[str, Change | None] = {
        name: partial(quantised, bits=bits, group=group) for name, (bits, group) in GRIDS.items()
    }
    if is_adapter(context.run.model):  # what merging alone does in the base's precision
        changes = {_MERGED: None} | changes
    return context.measure_each(_compress(context, changes), len(changes), tick)


def _prune(context: AuditContext, tick: Tick) -> list[SampleValue]:
    changes = {f"{share:g}": partial(pruned, share=share) for share in context.settings.prune}
    return context.measure_each(_compress(context, changes), len(changes), tick)


def _compress(context: AuditContext, changes: Mapping[str, Change | None]) -> States:
    for amount, change in changes.items():
        with compressed(context.run.model, change):
            yield amount, context.rows


def _interpolate(context: AuditContext, tick: Tick) -> list[SampleValue]:
    states = _way_back(context)
    return context.measure_each(states, len(context.settings.interpolate), tick)


def _way_back(context: AuditContext) -> States:
    """Go shares of the way from the unlearned back to the vanilla model."""
    start, end = context.weights("vanilla"), context.weights("unlearned")
    for share in context.settings.interpolate:
        with holding(context.run.model, between(start, end, 1 - share)):
            yield f"{share:g}", context.rows


def _relearning(split: relearn.Split, why: str) -> Attack:
    run = partial(relearn.relearn, split=split)
    return Attack("relearn", _TWO, ("relearn",), run, lambda c: "" if all(split(c)) else why)


ATTACKS: dict[str, Attack] = {
    PLAIN: Attack("", _THREE, (), _plain),
    "quantise": Attack("quantise", _TWO, (), _quantise),
    "prune": Attack("prune", _TWO, ("prune",), _prune),
    "interpolate": Attack("interpolate", ("unlearned",), ("interpolate",), _interpolate),
    "relearn-few": _relearning(relearn.few, "no unlearn train row is left to measure"),
    "relearn-other": _relearning(relearn.other, "there are no unlearn val rows"),
    "relearn-unrelated": _relearning(relearn.unrelated, "there is no general text"),
    "paraphrase": Attack("paraphrase", _THREE, (), paraphrase.paraphrase, paraphrase.why_not),
    "sample": Attack("sample", _THREE, ("samples", "written_rows"), sample_answers),
    "extract": Attack("extract", _THREE, ("told", "written_rows"), extract_answers),
}
