"""Results as plain tables of text; knows nothing of terminals, pages or files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from grail.results import Results, harmonic_success

MISSING = "\u2013"
BEST = "*"
"""Ends a cell that leads clearly; documents show it in their own way."""
ALL_DOMAINS = "all domains"
HUGE = 1e9

SUCCESS_NOTE = (
    "Cells: vanilla → unlearned, in percent; higher is better. "
    "US (unlearning success) = 100 - token accuracy on the unlearn rows. "
    "RS (retention success) = token accuracy on the retain rows. "
    "HS = harmonic mean of US and RS of a domain, then averaged over domains. "
    "Avg = mean of the US and RS of all domains. "
    "n = unlearn rows / retain rows."
)
TEXT_NOTE = (
    "Cells: vanilla → unlearned. "
    "NLL = mean negative log-likelihood of the completion, in nats/token. "
    "PPL = exp of that mean token NLL. "
    "ROUGE-L (0-100) compares greedy generations with the completions. "
    "High NLL is wanted on unlearn rows only; a PPL beyond all measure there "
    "signals destroyed text rather than forgetting."
)
OVERLAP_NOTE = (
    "Jaccard = shared entries / entries in either set, between the most important entries of two "
    "sides; 1 = the same entries."
)

Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Table:
    """A titled grid of finished text, the same for terminal, Markdown and page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


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
    """Return the domains in the order of the rows, without the general text."""
    return list(dict.fromkeys(r.domain for r in results.rows if r.side != "general"))


def parts(results: Results, side: str | None = None) -> list[str]:
    """Return the measured parts of one side (None: of the domains), train before val."""
    wanted = ("unlearn", "retain") if side is None else (side,)
    return sorted({row.part for row in results.rows if row.side in wanted})


def successes(results: Results) -> list[Successes]:
    """Return US, RS and HS of every domain and part, then Avg and HS of all domains per part."""
    found = [_domain_successes(results, d, p) for d in domains(results) for p in parts(results)]
    measured = [row for row in found if any(v is not None for v in _flat(row.pairs))]
    return measured + [_all_successes(results, part) for part in parts(results)]


def success_table(results: Results) -> Table:
    """Return the successes before and after, one row per domain and part, then the averages."""
    columns = ("US", "RS", "HS", "Avg")
    rows = []
    for row in successes(results):
        cells = (arrow(*row.pairs[c], percent) if c in row.pairs else "" for c in columns)
        rows.append((row.domain, row.part, *cells, row.rows))
    return Table("Successes", ("Domain", "Part", *columns, "n"), tuple(rows), SUCCESS_NOTE)


def text_table(results: Results) -> Table:
    """Return NLL, PPL and ROUGE-L per domain, side and part, before and after."""
    metrics = {"NLL": nats, "PPL": perplexity, "ROUGE-L": percent}
    return by_part(results, "Text quality", metrics, TEXT_NOTE)


def by_part(
    results: Results, title: str, metrics: Mapping[str, Callable[[float], str]], note: str
) -> Table:
    """Return metrics, each with how it is shown, one row per domain, side and part."""
    known = [row for row in results.rows if row.metric in metrics]
    places = list(dict.fromkeys((row.domain, row.side, row.part) for row in known))
    domain_order, sides = [*domains(results), "general"], ["unlearn", "retain", "general"]
    places.sort(key=lambda p: (_place(domain_order, p[0]), _place(sides, p[1]), p[2]))
    rows = []
    for place in places:
        domain, side, part = place
        pairs = {m: pair(results, domain, side, part, m) for m in metrics}
        cells = (arrow(*pairs[m], show) for m, show in metrics.items())
        rows.append((*place, *cells, count_of(results, place, tuple(metrics))))
    columns = ("Domain", "Side", "Part", *metrics, "n")
    return Table(title, columns, tuple(rows), note if rows else "Not measured.")


def overlap_table(localization: Mapping[str, Any]) -> Table:
    """Return the Jaccard matrix of the important entries; what was frozen stands in the note.

    A localizer without sets ("none") gives a table without rows.
    """
    jaccard = localization.get("jaccard") or {}
    names = tuple(jaccard.get("names") or ())
    values = jaccard.get("values") or []
    rows = tuple(
        (name, *(f"{v:.2f}" for v in line)) for name, line in zip(names, values, strict=True)
    )
    title = f"Overlap of the top {100 * jaccard['k']:g}% of the entries" if rows else "Overlap"
    note = f"{OVERLAP_NOTE} {frozen_sentence(localization)}" if rows else ""
    return Table(title, ("", *names), rows, note or frozen_sentence(localization))


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


def pair(results: Results, domain: str, side: str, part: str, metric: str) -> Pair:
    """Return one metric of the vanilla and of the unlearned model; None where not measured."""
    vanilla = results.value("vanilla", domain, side, part, metric)
    return vanilla, results.value("unlearned", domain, side, part, metric)


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


def perplexity(value: float) -> str:
    """Show a PPL; above 1e9 its digits mean nothing and only ">1e9" is shown."""
    if value > HUGE:
        return ">1e9"
    if value >= 1e5:
        return f"{value:.1e}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.2f}"


def finite(value: Any) -> TypeGuard[float]:
    """Tell whether ``value`` is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def _domain_successes(results: Results, domain: str, part: str) -> Successes:
    us = pair(results, domain, "unlearn", part, "US")
    rs = pair(results, domain, "retain", part, "RS")
    both = [_harmonic(u, r) for u, r in zip(us, rs, strict=True)]
    counts = (
        count_of(results, (domain, "unlearn", part), ("US",)),
        count_of(results, (domain, "retain", part), ("RS",)),
    )
    pairs: dict[str, Pair] = {"US": us, "RS": rs, "HS": (both[0], both[1])}
    return Successes(domain, part, pairs, "/".join(counts))


def _all_successes(results: Results, part: str) -> Successes:
    models = results.summary.get(part, {})
    before, after = models.get("vanilla", {}), models.get("unlearned", {})
    return Successes(ALL_DOMAINS, part, {m: (before.get(m), after.get(m)) for m in ("HS", "Avg")})


def _harmonic(us: float | None, rs: float | None) -> float | None:
    return None if us is None or rs is None else harmonic_success(us, rs)


def count_of(results: Results, place: tuple[str, str, str], metrics: tuple[str, ...]) -> str:
    """Return the number of samples behind the cells of one place ("a, b" where they differ)."""
    counts = {
        row.n
        for row in results.rows
        if (row.domain, row.side, row.part) == place and row.metric in metrics
    }
    return ", ".join(map(str, sorted(counts))) or MISSING


def _flat(pairs: Mapping[str, Pair]) -> list[float | None]:
    return [value for both in pairs.values() for value in both]


def _place(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
