"""The one verdict on a run: the audit's where there is one, else what the run's figures say.

``grail run``, ``grail audit`` and the report all show this verdict, so that none contradicts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grail.reporting.audit.generated import broken_text
from grail.reporting.audit.knowledge import (
    AUDIT_FORMAT,
    BY_WEIGHT,
    NOTHING,
    REMOVED,
    UNDECIDED,
    judge_all,
)
from grail.reporting.audit.lights import AS_IT_IS, lights_table
from grail.reporting.audit.moved import frozen_moved
from grail.reporting.audit.verdict import HEADLINES, harm
from grail.reporting.run.verdict import run_checks
from grail.reporting.tables import BAD, GOOD, MISSING, NOTE, OPEN, WORST_LAST, Check, Table
from grail.results import GUESS, Results

OUTCOMES = {"pass": (GOOD, "Passed"), "fail": (BAD, "Not passed"), "undecided": (OPEN, "Undecided")}
"""Outcome of a verdict -> its light and its words."""

_LIGHTS = {REMOVED: GOOD, NOTHING: OPEN, UNDECIDED: OPEN}
"""Outcome of a domain in the audit -> its light; all others are BAD."""

_NEXT = {
    "attack": "attack the result: grail audit RUNDIR.",
    "oracle": "make an oracle (the same YAML file with preset=exact and another output) and "
    "audit again with --oracle.",
    "rows": "give more rows, or more wordings of the same facts; then run and audit again.",
    "fail": "see what to try: 'If the verdict is not what you want' in docs/troubleshooting.md.",
    "pass": "hand the model over, then delete what still knows: vanilla/ and your data files.",
}


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a run.

    Attributes:
        outcome: "pass", "fail" or "undecided"; without an audit never "pass".
        headline: One sentence in plain words.
        checks: What was looked at, each with its light.
        advice: What to do next, one sentence.
    """

    outcome: str
    headline: str
    checks: tuple[Check, ...]
    advice: str

    @property
    def sentences(self) -> list[str]:
        """The verdict for a terminal: outcome and headline, each check, and what to do next."""
        first = f"{OUTCOMES[self.outcome][1]}: {self.headline}"
        return [first, *(check.sentence for check in self.checks), f"Next: {self.advice}"]

    @property
    def table(self) -> Table:
        """The checks as a table, the lights first."""
        rows = tuple((f"{c.light} {c.word}", c.subject, c.figures) for c in self.checks)
        return Table("What was checked", ("Found", "What", "Figures"), rows)


def verdict(results: Results, audit: Mapping[str, Any] | None = None) -> Verdict:
    """Judge a run by its figures and, if it was attacked, by its audit (``read_audit``).

    The audit compares with an oracle and attacks, so it decides where both have a say; what it
    does not look at is then shown and decides nothing. Frozen entries that moved always fail, and
    so do rows under ``check`` that have not held.
    """
    checks = run_checks(results)
    if audit is None or audit.get("format") != AUDIT_FORMAT:
        return _unattacked(checks)
    return _attacked(checks, audit)


def _unattacked(checks: Sequence[Check]) -> Verdict:
    """Judge by the thresholds of the run alone."""
    bad = [check for check in checks if check.light == BAD]
    doubted = [check for check in checks if check.light == OPEN]
    checks = (*checks, Check(OPEN, "not tried yet", "attacks"))
    if bad:
        return Verdict("fail", _named("", bad), checks, _NEXT["fail"])
    headline = "good as far as it was measured, but it has not been attacked yet."
    if doubted:
        headline = _named("not attacked yet, and in doubt: ", doubted)
    return Verdict("undecided", headline, checks, _NEXT["attack"])


def _named(words: str, checks: Sequence[Check]) -> str:
    return f"{words}{'; '.join(f'{check.subject}: {check.word}' for check in checks)}."


def _attacked(checks: Sequence[Check], audit: Mapping[str, Any]) -> Verdict:
    """Judge by the audit: its lights take the place of those of the run."""
    cases = judge_all(audit)
    outcomes: dict[str, str] = {}
    for case in cases:
        known = outcomes.get(case.domain, case.outcome)
        outcomes[case.domain] = max(case.outcome, known, key=BY_WEIGHT.index)
    harmed = {f"{d}.retain" if d != "general" else d for d, bad, _ in harm(audit) if bad}
    flagged = {"text": bool(broken_text(audit)[0]), "freezing": frozen_moved(audit)}
    bad = harmed | {place for place, found in flagged.items() if found}
    shown = [_judged(check, outcomes, bad) for check in checks]
    failed = any(check.light == BAD for check in shown)
    attacks = _attacks(audit)
    worst = max(outcomes.values(), key=BY_WEIGHT.index, default=UNDECIDED)
    headline = HEADLINES[worst]
    outcome = {GOOD: "pass", OPEN: "undecided"}.get(_LIGHTS.get(worst, BAD), "fail")
    if failed and outcome != "fail":
        reasons = [check for check in shown if check.light == BAD]
        outcome, headline = "fail", _named("removed, but: ", reasons)
    elif outcome == "pass" and not audit.get("passed"):
        outcome, headline = "undecided", "removed, but not every attack could be made."
    alone = "oracle" if audit["oracle"] in (None, GUESS) else "rows"
    advice = _NEXT[alone if outcome == "undecided" else outcome]
    return Verdict(outcome, headline[0].lower() + headline[1:], (*shown, attacks), advice)


def _judged(check: Check, outcomes: Mapping[str, str], bad: set[str]) -> Check:
    """Give a check of the run the light of the audit."""
    domain, _, side = check.place.rpartition(".")
    if side == "unlearn" and domain in outcomes:
        outcome = outcomes[domain]
        return replace(check, light=_LIGHTS.get(outcome, BAD), word=outcome)
    if check.place in bad:
        word = check.word if check.light == BAD else "beyond the audit's bounds"
        return replace(check, light=BAD, word=word)
    alone = check.place == "freezing" or side == "check"  # the audit says nothing of these rows
    if check.light in (GOOD, NOTE) or (alone and check.light == BAD):
        return check
    kept = side == "retain" or check.place == "general"
    return replace(check, light=NOTE, word=check.word + ", within the audit's bounds" * kept)


def _attacks(audit: Mapping[str, Any]) -> Check:
    """Sum up the lights of all attacks in one."""
    rows = [row for row in lights_table(audit).rows if not row[2].startswith(AS_IT_IS)]
    light = max((row[0][:1] for row in rows), key=WORST_LAST.index, default=OPEN)
    counts = Counter(row[1] for row in rows if row[0][:1] == light)
    words = {GOOD: "nothing comes back", NOTE: "nothing comes back, but see", OPEN: "undecided"}
    found = [f"{count} on {domain}" for domain, count in counts.items() if domain != MISSING]
    found += [f"{counts[MISSING]} not tried"] if MISSING in counts else []
    figures = f"{', '.join(found)}, of {len(rows)}; see the table of attacks"
    return Check(light, words.get(light, "comes back"), "attacks", figures)
