"""The audit as one table: a line and a light for each attack on each domain.

Reads the content of ``audit.json`` alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from grail.reporting.audit.generated import generated, revealing
from grail.reporting.audit.knowledge import (
    NOT,
    NOTHING,
    WORDS,
    Case,
    Known,
    audit_domains,
    judge_all,
    strongest,
)
from grail.reporting.tables import (
    BAD,
    GOOD,
    MISSING,
    NOTE,
    OPEN,
    WORST_LAST,
    Table,
    percent,
    plus_minus,
)
from grail.results import GUESS

AS_IT_IS = "as it is"
PLAIN_NAMES = {
    "quantise": "weights rounded to few bits",
    "prune": "small weights set to zero",
    "adapter": "adapter taken off or halved",
    "relearn-few": "a tenth of the rows taught again",
    "relearn-other": "other questions taught",
    "relearn-unrelated": "unrelated text taught",
    "paraphrase": "asked in other words",
    "sample": "asked again and again",
    "extract": "half of the answer given",
}
"""Attack -> what it does, in plain words."""

_NEVER = {
    "oracle": "a model that never saw the rows, under the same attack",
    "guess": "what such a model guesses, measured without any attack; it does not tell what "
    "teaching brings",
}
_NOTE = (
    "Each attack at its strongest. {good} held; {bad} comes back, or was never gone; {open} rises, "
    "but this audit cannot tell whether it comes back; {note} look here: it decides nothing. "
    "Known: percent of the answer's tokens right (ROUGE-L where answers are written), ± one "
    "standard error. Never knew it: {never}. "
    "Above it: the difference in points, with {errors:g} standard errors on either side."
)


def not_asked(audit: Mapping[str, Any]) -> list[str]:
    """Return the kinds of attacks that were not asked for."""
    kinds = dict.fromkeys(name.partition("-")[0] for name in PLAIN_NAMES)
    return [kind for kind in kinds if kind not in audit["settings"]["attacks"]]


def lights_table(audit: Mapping[str, Any]) -> Table:
    """Return a line per domain and attack; then what was not tried."""
    cases = judge_all(audit)
    lines = []
    for domain in audit_domains(audit):
        own = [case for case in cases if case.domain == domain]
        lines += [_line(audit, domain, *found) for found in (*_asked(own), *_attacked(own))]
        written = generated(audit, domain)
        for row in strongest(written, size=lambda row: (revealing(audit, row), row.level)):
            found = (NOTE, "more than it could guess") if revealing(audit, row) else (GOOD, "held")
            name = f"{PLAIN_NAMES[row.attack]} ({row.name})"
            lines.append(_line(audit, domain, *found, name, row))
    thresholds = audit["settings"]["thresholds"]
    named = {"good": GOOD, "bad": BAD, "open": OPEN, "note": NOTE}
    named["never"] = _NEVER["guess" if audit["oracle"] == GUESS else "oracle"]
    columns = ("Found", "Domain", "Attack", "Known %", "Never knew it %", "Above it")
    note = _NOTE.format(errors=thresholds["errors"], **named)
    return Table("Attacks", columns, (*lines, *_not_tried(audit)), note)


def _asked(cases: list[Case]) -> Iterator[tuple[str, str, str, Known]]:
    """Yield light, word, name and figures of the model as it is, for train and for val rows."""
    for case in cases[:1]:
        for name, row in ((AS_IT_IS, case.now), *((f"{AS_IT_IS}, val rows", r) for r in case.val)):
            light, word = (BAD, "still known") if row in case.left else (GOOD, "gone")
            if row in case.below:
                light, word = BAD, "below guessing"
            if case.outcome in (NOT, NOTHING):
                light, word = (BAD, NOT) if case.outcome == NOT else (OPEN, NOTHING)
            yield light, word, name, row


def _attacked(cases: list[Case]) -> Iterator[tuple[str, str, str, Known]]:
    """Yield the same for each attack that can decide, by the worst of its amounts and metrics."""
    found: dict[str, list[tuple[str, str, Known, Case]]] = {}
    for case in cases:
        for row in case.attacks:
            light, word = (OPEN, "undecided") if row in case.rising else (GOOD, "held")
            if row in case.back:
                light, word = BAD, "comes back"
            found.setdefault(row.attack, []).append((light, word, row, case))
    for attack, graded in found.items():
        light, word, row, case = max(
            graded, key=lambda one: (WORST_LAST.index(one[0]), one[3] is cases[0], one[2].level)
        )
        by = "" if case.metric == "US" else f", by {WORDS[case.metric]}"
        yield light, word, f"{PLAIN_NAMES.get(attack, attack)} ({row.name}{by})", row


def _line(
    audit: Mapping[str, Any], domain: str, light: str, word: str, name: str, row: Known
) -> tuple[str, ...]:
    never = MISSING if row.never is None else percent(row.never)
    above = row.above(audit["settings"]["thresholds"]["errors"]) or MISSING
    return (f"{light} {word}", domain, name, plus_minus(row.value, row.error), never, above)


def _not_tried(audit: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for each attack that was not asked for, or could not be made."""
    reasons = dict.fromkeys(not_asked(audit), "not asked for")
    reasons |= {one["attack"]: one["reason"] for one in audit["skipped"]}
    return [
        (f"{NOTE} not tried", MISSING, f"{PLAIN_NAMES.get(name, name)}: {reason}", *[MISSING] * 3)
        for name, reason in reasons.items()
    ]
