"""ATTACKS: name -> what changes and how it is measured; each leaves the model as it was.

The label of a measured value is the amount of the attack: ``int8``, ``10`` steps, a share ``0.3``.
Relearning is one attack for each attacker, with the name "relearn-few@ATTACKER".
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer

from grail.audit.attacks import paraphrase, relearn
from grail.audit.attacks.attackers import attackers
from grail.audit.attacks.compress import Change, compressed
from grail.audit.attacks.prune import pruned
from grail.audit.attacks.quantise import GRIDS, quantised
from grail.audit.attacks.sampling import SPEAK, extract_answers, sample_answers, speak
from grail.audit.context import AuditContext
from grail.data.encode import Encoded
from grail.evaluation.equal_retention import between
from grail.evaluation.values import SampleValue
from grail.model.forward import is_adapter
from grail.model.weights import holding
from grail.progress import Tick

PLAIN = "plain"
"""The measurement without attack, and its amount."""

_TWO, _THREE = ("unlearned", "oracle"), ("vanilla", "unlearned", "oracle")

States = list[tuple[str, AbstractContextManager[None]]]
"""(Amount, a block in which the model is changed so far)."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        kind: Its word in ``audit.attacks``; "" for a measurement without attack.
        models: The models that are attacked.
        settings: Keys of ``audit`` that its values depend on.
        run: Attacks the loaded model and returns the values, labelled with their amounts.
        why_not: Returns why the run does not allow it; "" if it does.
        facts: What else its values depend on.
    """

    kind: str
    models: tuple[str, ...]
    settings: tuple[str, ...]
    run: Callable[[AuditContext, Tick], list[SampleValue]]
    why_not: Callable[[AuditContext], str] = lambda _: ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def _plain(context: AuditContext, tick: Tick) -> list[SampleValue]:
    return context.measure(PLAIN, context.rows, tick)


def _in_each(states: Callable[[AuditContext], States]) -> Callable[..., list[SampleValue]]:
    """Return an attack that measures the model in each of its states."""

    def run(context: AuditContext, tick: Tick) -> list[SampleValue]:
        changes = states(context)

        def changed() -> Generator[tuple[str, Sequence[Encoded]]]:
            for amount, change in changes:
                with change:
                    yield amount, context.attacked

        return context.measure_each(changed(), len(changes), tick)

    return run


def _quantise(context: AuditContext) -> States:
    model = context.run.model
    changes: dict[str, Change | None] = {
        name: partial(quantised, bits=bits, group=group) for name, (bits, group) in GRIDS.items()
    }
    if is_adapter(model):  # what merging alone does in the base's precision
        changes = {"merged": None} | changes
    return [(name, compressed(model, change)) for name, change in changes.items()]


def _prune(context: AuditContext) -> States:
    model, shares = context.run.model, context.settings.prune
    return [(f"{share:g}", compressed(model, partial(pruned, share=share))) for share in shares]


def _interpolate(context: AuditContext) -> States:
    """Go shares of the way from the unlearned back to the vanilla model."""
    start, end = context.weights("vanilla"), context.weights("unlearned")

    @contextmanager
    def at(share: float) -> Iterator[None]:
        with holding(context.run.model, between(start, end, 1 - share)):
            yield

    return [(f"{share:g}", at(share)) for share in context.settings.interpolate]


def _adapter(context: AuditContext) -> States:
    """Take the adapter off its base, or halve it: what the base knows comes out again."""
    model: Any = context.run.model
    states: States = [("off", model.disable_adapter())]
    if any(isinstance(layer, LoraLayer) for layer in model.modules()):
        states.append(("0.5", rescale_adapter_scale(model, 0.5)))
    return states


def _no_adapter(context: AuditContext) -> str:
    return "" if is_adapter(context.run.model) else "the model has no adapter to take off"


RELEARNINGS: dict[str, tuple[relearn.Split, str]] = {
    "relearn-few": (relearn.few, "no unlearn train row is left to measure"),
    "relearn-other": (relearn.other, "there are no unlearn val rows"),
    "relearn-unrelated": (relearn.unrelated, "there is no general text"),
}
"""Relearning attack -> which rows are taught and asked, and why there may be none."""

ATTACKS: dict[str, Attack] = {
    PLAIN: Attack("", _THREE, (), _plain),
    SPEAK: Attack("", _THREE, ("written_rows",), speak),
    "quantise": Attack("quantise", _TWO, (), _in_each(_quantise)),
    "prune": Attack("prune", _TWO, ("prune",), _in_each(_prune)),
    "interpolate": Attack("interpolate", ("unlearned",), ("interpolate",), _in_each(_interpolate)),
    "adapter": Attack("adapter", _TWO, (), _in_each(_adapter), _no_adapter),
    "paraphrase": Attack("paraphrase", _THREE, (), paraphrase.paraphrase, paraphrase.why_not),
    "sample": Attack("sample", _THREE, ("samples", "written_rows"), sample_answers),
    "extract": Attack("extract", _THREE, ("told", "written_rows"), extract_answers),
}
"""All but the relearning attacks, which depend on the run's settings."""


def attacks_of(context: AuditContext) -> Iterator[tuple[str, Attack]]:
    """Yield the measurements without attack, then the attacks that are asked for, by name."""
    asked = context.settings.attacks
    for name, attack in ATTACKS.items():
        if not attack.kind or attack.kind in asked:
            yield name, attack
    if "relearn" not in asked:
        return
    settings = context.settings.relearn.model_dump(include={"steps", "batch_size", "share"})
    for name, (split, why) in RELEARNINGS.items():
        for attacker in attackers(context.run.config):
            run = partial(relearn.relearn, split=split, attacker=attacker)
            facts = settings | {"rate": attacker.learning_rate}
            yield (
                f"{name}@{attacker.name}",
                Attack(
                    *("relearn", _TWO, (), run),
                    lambda c, split=split, why=why: "" if all(split(c)) else why,
                    facts,
                ),
            )
