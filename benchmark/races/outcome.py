"""What a part of the benchmark hands back, and what is wanted of the ratios."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """Measurements and ratios of one part.

    Attributes:
        part: Which part of the benchmark.
        measurements: JSON values, one per race; each gets its part's name.
        ratios: Name -> ratio; the name begins with the part's.
        notes: What was left out, and why.
    """

    part: str
    measurements: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, **found: Any) -> None:
        """Keep one measurement."""
        self.measurements.append({"part": self.part, "what": what, **found})

    def rate(self, name: str, value: float) -> None:
        """Keep one ratio."""
        self.ratios[f"{self.part}: {name}"] = value

    def note(self, text: str) -> None:
        """Say what was left out; once is enough."""
        line = f"{self.part}: {text}"
        if line not in self.notes:
            self.notes.append(line)


WANTED = {
    "scoring: naive loop / grail": (3.0, "at least"),
    "scoring: grail's pace of the same bare pass": (0.8, "at least"),
    "scoring: memory, grail / the same bare pass": (1.5, "at most"),
    "scoring: naive loop / expected labels": (8.0, "at least"),
    "training: Trainer / grail": (1.5, "at least"),
    "training: what a mask adds to a step": (0.02, "at most"),
    "evaluation: one by one / grail": (4.0, "at least"),
    "pipeline: naive / grail": (2.0, "at least"),
}
"""Beginning of a ratio's name -> the limit that it is measured against."""


def verdict(name: str, value: float) -> str:
    """Return the limit that belongs to a ratio and whether it is kept; "" where there is none."""
    for beginning, (limit, side) in WANTED.items():
        if name.startswith(beginning):
            kept = value >= limit if side == "at least" else value <= limit
            return f"{side} {limit:g}: {'yes' if kept else 'no'}"
    return ""
