"""Looks at a model while it is trained: which is the best, and whether the training is done.

Everything is computed from the rows that the looks found, so that a resumed training decides as
one that was never interrupted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Seen = dict[str, Any]
"""One side at one look: step, epoch, domain, side, success (percent or None), nll (nats)."""

_Key = tuple[bool, float, float]
"""How good a look is, the best first: beyond a bound, points not yet forgotten, damage."""

NATS = 100.0
"""What a nat of general text counts in damage, in points of a success: 0.1 nats are 10 points."""


@dataclass(frozen=True)
class Bounds:
    """When all is forgotten, and what may be lost on the way.

    Attributes:
        forgotten: Domain -> the US (percent) from which it counts as forgotten.
        retain: Points that the RS of a domain may fall.
        general: Nats that the NLL of general text may rise.
        patience: Looks in a row beyond a bound after which the training ends.
    """

    forgotten: Mapping[str, float]
    retain: float
    general: float
    patience: int


@dataclass(frozen=True)
class Looks:
    """How a model is looked at while it is trained.

    Attributes:
        every: Steps between looks, of which the first is before the training and the last after
            it; 0: none.
        measure: Returns one row per side, without step and epoch.
        bounds: When the training ends; None: after its epochs, and the last weights are kept.
        guess: Domain -> US (percent) of a model that never knew, as far as it could be measured.
    """

    every: int = 0
    measure: Callable[[], list[Seen]] = list
    bounds: Bounds | None = None
    guess: Mapping[str, float] = field(default_factory=dict)

    def end(self, rows: Sequence[Seen]) -> bool:
        """Tell whether the training is done: all is forgotten within bounds, or harm stays."""
        keys = list(self._keys(rows).values())
        if self.bounds is None or not keys:
            return False
        beyond, missing, _ = keys[-1]
        recent = keys[-self.bounds.patience :]
        lost = len(recent) == self.bounds.patience and all(key[0] for key in recent)
        return (not beyond and not missing) or lost

    def kept(self, rows: Sequence[Seen]) -> int:
        """Return the step of the best look; without bounds, of the last."""
        keys = self._keys(rows)
        return max(keys, default=0) if self.bounds is None else min(keys, key=lambda s: keys[s])

    def _keys(self, rows: Sequence[Seen]) -> dict[int, _Key]:
        """Return how good each look is, by step."""
        steps: dict[int, dict[tuple[Any, str], Seen]] = {}
        for row in rows:
            steps.setdefault(row["step"], {})[row["domain"], row["side"]] = row
        if self.bounds is None:
            return dict.fromkeys(steps, (False, 0.0, 0.0))
        first = next(iter(steps.values()), {})
        return {step: _key(look, first, self.bounds) for step, look in steps.items()}


NO_LOOKS = Looks()


def _key(look: Mapping[Any, Seen], first: Mapping[Any, Seen], bounds: Bounds) -> _Key:
    missing, beyond, damage = 0.0, False, 0.0
    for (domain, side), row in look.items():
        before = first[domain, side]
        if side == "unlearn":
            missing += max(0.0, bounds.forgotten[domain] - row["success"])
        elif side == "retain":
            lost = before["success"] - row["success"]
            beyond, damage = beyond or lost > bounds.retain, damage + max(0.0, lost)
        else:
            rise = row["nll"] - before["nll"]
            beyond, damage = beyond or rise > bounds.general, damage + max(0.0, NATS * rise)
    return beyond, missing, damage
