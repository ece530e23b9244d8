"""Results as plain text, in tables and sentences; knows nothing of terminals, pages or files."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from grail.results import Results, harmonic_success

MISSING = "\u2013"
BEST = "*"
"""Ends a cell that leads clearly; documents show it in their own way."""
WARNING = "Warning: "
"""Starts a sentence that needs attention."""
ALL_DOMAINS = "all domains"
HUGE = 1e9
"""A PPL above this says no more than that the text is destroyed."""

GOOD, NOTE, OPEN, BAD = WORST_LAST = ("✓", "!", "?", "✗")
"""Lights, told apart by their signs: good; look here, though it decides nothing; cannot be decided;
bad. A cell that begins with one and a blank is shown in its colour."""

Pair = tuple[float | None, float | None]
"""One metric of the vanilla and of the unlearned model; None where it was not measured."""


@dataclass(frozen=True)
class Table:
    """A titled grid of finished text, the same for terminal, Markdown and page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that a verdict looks at.

    Attributes:
        light: ``GOOD``, ``NOTE``, ``OPEN`` or ``BAD``.
        word: What was found, in a word or two.
        subject: What was looked at.
        figures: The numbers behind the word; "" if there are none.
        place: "DOMAIN.SIDE", "general", "text" or "freezing"; "" for what an audit does not judge.
    """

    light: str
    word: str
    subject: str
    figures: str = ""
    place: str = ""

    @property
    def sentence(self) -> str:
        """The check in one sentence, which begins with "Warning: " where it is OPEN or BAD."""
        warning = WARNING * (self.light in (OPEN, BAD))
        return f"{warning}{self.subject}: {self.word}{f' ({self.figures})' * bool(self.figures)}."


@dataclass(frozen=True)
class Successes:
    """The successes of one domain (or of all) on one part: metric -> (vanilla, unlearned).

    Values are percent (0-100), None where not measured; ``rows`` is "unlearn/retain" counts.
    """

    domain: str
    part: str
    pairs: dict[str, Pair]
    rows: str = ""


def domains(results: Results) -> list[str]:
    """Return the domains that were unlearned or retained, in the order of the rows."""
    sides = ("unlearn", "retain")
    return list(dict.fromkeys(row.domain for row in results.rows if row.side in sides))


def parts(results: Results, side: str | None = None) -> list[str]:
    """Return the measured parts of one side (None: of the domains), train before val."""
    sides = ("unlearn", "retain") if side is None else (side,)
    return sorted({row.part for row in results.rows if row.side in sides})


def pair(results: Results, domain: str, side: str, part: str, metric: str) -> Pair:
    """Return one metric of the vanilla and of the unlearned model."""
    vanilla = results.value("vanilla", domain, side, part, metric)
    return vanilla, results.value("unlearned", domain, side, part, metric)


def count_of(results: Results, place: tuple[str, str, str], metrics: Sequence[str]) -> str:
    """Return the number of samples behind the cells of one place ("a, b" where they differ)."""
    counts = {
        row.n
        for row in results.rows
        if (row.domain, row.side, row.part) == place and row.metric in metrics
    }
    return ", ".join(map(str, sorted(counts))) or MISSING


def successes(results: Results) -> list[Successes]:
    """Return US, RS and HS of every domain and part, then Avg and HS of all domains per part."""
    every = [_of_domain(results, d, p) for d in domains(results) for p in parts(results)]
    measured = [s for s in every if any(v is not None for both in s.pairs.values() for v in both)]
    for part in parts(results):
        models = results.summary.get(part, {})
        before, after = models.get("vanilla", {}), models.get("unlearned", {})
        pairs: dict[str, Pair] = {m: (before.get(m), after.get(m)) for m in ("HS", "Avg")}
        measured.append(Successes(ALL_DOMAINS, part, pairs))
    return measured


def _of_domain(results: Results, domain: str, part: str) -> Successes:
    us = pair(results, domain, "unlearn", part, "US")
    rs = pair(results, domain, "retain", part, "RS")
    before, after = (
        None if u is None or r is None else harmonic_success(u, r)
        for u, r in zip(us, rs, strict=True)
    )
    unlearn = count_of(results, (domain, "unlearn", part), ("US",))
    retain = count_of(results, (domain, "retain", part), ("RS",))
    pairs: dict[str, Pair] = {"US": us, "RS": rs, "HS": (before, after)}
    return Successes(domain, part, pairs, f"{unlearn}/{retain}")


def frozen_sentence(localization: Mapping[str, Any]) -> str:
    """Say in one sentence how much of the model was frozen, and by which localizer."""
    model = localization.get("model") or {}
    if not model:
        return "No localization was recorded."
    return (
        f"Frozen: {model['frozen']:,} of {model['entries']:,} entries "
        f"({model['frozen_fraction']:.1%}) by localizer {localization.get('localizer', '?')}; "
        f"OP-UR {model['op_ur']:,}, OP-RR {model['op_rr']:,}."
    )


def worst(graded: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the (light, word) of the worst light; the first of equals."""
    return max(graded, key=lambda pair: WORST_LAST.index(pair[0]))


def listed(text: str, items: Sequence[str], warning: bool = False, separator: str = "; ") -> str:
    """Return the sentence "text: item; item."; "" without items."""
    return f"{WARNING * warning}{text}: {separator.join(items)}." if items else ""


def markdown(table: Table) -> str:
    """Return the table as GitHub Markdown, with its title as heading and its note below."""
    lines = [f"## {escaped(table.title)}", ""]
    if table.rows:
        rule = ("---",) * len(table.columns)
        cells = [tuple(map(escaped, row)) for row in (table.columns, *table.rows)]
        lines += [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])] + [""]
    if table.note:
        lines += [escaped(table.note), ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Keep names of users from being read as Markdown cells or as HTML, on one line."""
    pairs = (("\\", "\\\\"), ("|", "\\|"), ("&", "&amp;"), ("<", "&lt;"), ("\n", " "))
    for character, harmless in pairs:
        text = text.replace(character, harmless)
    return text


def arrow(before: float | None, after: float | None, show: Callable[[float], str]) -> str:
    """Return "before → after"; a dash for what was not measured."""
    if before is None and after is None:
        return MISSING
    return " → ".join(MISSING if v is None else show(v) for v in (before, after))


def percent(value: float) -> str:
    """Show a value in percent (0-100) without the sign."""
    return f"{value:.1f}"


def plus_minus(value: float | None, error: float | None, sign: str = "") -> str:
    """Show a number with its standard error, "12.3 ± 1.9"; ``sign`` "+" always shows the sign."""
    if value is None:
        return MISSING
    text = f"{value:{sign}.1f}"
    return text if error is None else f"{text} ± {error:.1f}"


def nats(value: float) -> str:
    """Show an NLL in nats/token."""
    return f"{value:.2f}"


def finite(value: Any) -> TypeGuard[float]:
    """Tell whether ``value`` is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)
