"""The verdict of an audit in words: removed, harmed, what comes back, and how sure that is.

Reads the content of ``audit.json`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grail.reporting.audit.generated import generated_sentences
from grail.reporting.audit.internals import frozen_moved, internals_sentences
from grail.reporting.audit.knowledge import (
    BACK,
    BY_WEIGHT,
    NOT,
    NOTHING,
    PARTLY,
    REMOVED,
    UNDECIDED,
    WORDS,
    Case,
    audit_domains,
    decisive,
    judge_all,
    known,
    strongest,
)
from grail.reporting.tables import WARNING, listed, nats, percent, plus_minus

HEADLINES = {
    REMOVED: "Removed: no conclusive attack brings it back.",
    NOTHING: "Nothing to remove: it was not known before.",
    UNDECIDED: "Removed without attack; this audit cannot tell whether attacks bring it back (see "
    "below).",
    BACK: "Removed without attack, but it comes back under attack.",
    PARTLY: "Only partly removed.",
    NOT: "Not unlearned: the unlearned model still knows the unlearn rows.",
}
_ATTACKS = ("quantise", "prune", "relearn", "paraphrase", "sample", "extract")


def audit_verdict(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"outcome", "outcomes", "passed", "sentences"} for the content of ``audit.json``.

    ``outcomes`` is {domain: {metric: outcome}}, ``outcome`` the worst of them. ``passed`` means
    REMOVED, with a conclusive attack on every domain and none that broke off, nothing badly
    harmed, and no frozen entry moved.
    """
    cases = judge_all(audit)
    outcomes: dict[str, dict[str, str]] = {}
    for case in cases:
        outcomes.setdefault(case.domain, {})[case.metric] = case.outcome
    worst = max((c.outcome for c in cases), key=BY_WEIGHT.index, default=UNDECIDED)
    harmed, unharmed = _harm(audit)
    attacked = {case.domain for case in cases if case.attacks}
    broken = any(one["attack"].endswith(" on unlearned") for one in audit["skipped"])
    tried = bool(outcomes) and attacked == set(outcomes) and not broken
    alarm = "" if worst in (REMOVED, NOTHING) else WARNING
    sentences = [
        f"{alarm}{HEADLINES[worst]}",
        *_removed(cases),
        listed("Still known in other words", _other_words(audit, cases), warning=True),
        listed("Harmed", harmed, warning=True),
        listed("Kept", unharmed),
        *_comes_back(audit, cases),
        *_held(audit, cases),
        *generated_sentences(audit),
        *internals_sentences(audit),
        *_doubts(audit),
    ]
    return {
        "outcome": worst,
        "outcomes": outcomes,
        "passed": worst == REMOVED and tried and not harmed and not frozen_moved(audit),
        "sentences": [sentence for sentence in sentences if sentence],
    }


def _removed(cases: Sequence[Case]) -> list[str]:
    """Say per metric what was known before and is known now, on train rows."""
    texts: dict[str, list[str]] = {}
    for case in cases:
        now, words = case.now, WORDS[case.metric]
        oracle = "" if now.beyond is None else f"; oracle {percent(now.value - now.beyond)}"
        values = f"{percent(case.vanilla.value)} → {plus_minus(now.value, now.error)} % {words}"
        text = f"{case.domain}: {case.outcome} ({values}{oracle}; n {now.n})"
        texts.setdefault(case.metric, []).append(text)
    return [f"On train rows, {'; '.join(items)}." for items in texts.values()]


def _other_words(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Say where val rows, the same facts in other words, are still known (first metric only)."""
    left = audit["settings"]["thresholds"]["left"]
    return [
        f"{case.domain} ({plus_minus(now.value, now.error)} % {WORDS[case.metric]} on val rows"
        f"{now.above}; n {now.n})"
        for case in cases
        for now in case.val
        if case.metric == cases[0].metric and now.level > left
    ]


def _harm(audit: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what retain rows and general text lost: beyond the thresholds, and within them."""
    limits = audit["settings"]["thresholds"]
    harmed: list[str] = []
    unharmed: list[str] = []
    entries = audit["measured"]
    plain = [e for e in entries if (e["model"], e["attack"]) == ("unlearned", "plain")]
    for row in (row for entry in plain for row in entry["rows"]):
        value, change = row["value"], row.get("change") or 0.0
        if row["metric"] == "RS":
            worse = -change > limits["harmed"]
            numbers = f"{percent(value - change)} → {plus_minus(value, row['error'])}"
            text = f"{row['domain']}, {row['part']} rows ({numbers}; n {row['n']})"
        elif (row["side"], row["metric"]) == ("general", "NLL"):
            worse = change > limits["harmed_nll"]
            numbers = f"{nats(value - change)} → {nats(value)} nats/token"
            text = f"general text ({numbers}; n {row['n']})"
        else:
            continue
        (harmed if worse else unharmed).append(text)
    return harmed, unharmed


def _comes_back(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Say what surely rises under which attack; relearning without an oracle decides nothing."""
    back: list[str] = []
    undecided: list[str] = []
    for case in cases:
        for row in strongest(case.sure, size=lambda row: row.value):
            text = (
                f"{case.domain} by {row.name} to {percent(row.value)} % {WORDS[case.metric]} "
                f"({plus_minus(row.rise, row.change_error, '+')} points{row.above}; n {row.n})"
            )
            (back if decisive(audit, row) else undecided).append(text)
    learnt = "Rises, but without an oracle this cannot be told from learning the rows anew"
    return [listed("Comes back", back, warning=True), listed(learnt, undecided, warning=True)]


def _held(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Name the attacks that do not surely bring it back, each with the most points it adds."""
    limit = audit["settings"]["thresholds"]["back"]
    won = {row.attack for case in cases for row in case.sure}
    rising = (row for case in cases for row in case.rising if row.attack not in won)
    unsure = strongest(rising, size=lambda row: row.rise)
    decided = won | {row.attack for row in unsure}
    others = (row for case in cases for row in case.attacks if row.attack not in decided)
    rest = strongest(others, size=lambda row: row.rise)
    groups = {
        f"{WARNING}Rises, but there are too few rows to be sure": unsure,
        "Rises, but not above the oracle or what may be left": [r for r in rest if r.rise > limit],
        "Brings back little or nothing": [r for r in rest if r.rise <= limit],
    }
    points = {
        text: [f"{r.attack} {plus_minus(r.rise, r.change_error, '+')}" for r in rows]
        for text, rows in groups.items()
    }
    return [listed(f"{text} (points at most)", p, separator=", ") for text, p in points.items()]


def _doubts(audit: Mapping[str, Any]) -> list[str]:
    """Say how small a difference these rows could show, and what was not tried."""
    sentences = []
    domains = audit_domains(audit)
    rows = [row for d in domains for row in known(audit, "unlearned", d, "train", "US")]
    errors = [row.change_error for row in rows if row.change_error is not None]
    if errors:
        fewest = min(row.n for row in rows if row.change_error is not None)
        missed = audit["settings"]["thresholds"]["errors"] * max(errors)
        sentences.append(
            f"Precision: the smallest group has {fewest} rows, and the largest standard error of a "
            f"change is {percent(max(errors))} points: a change below {percent(missed)} points "
            "could be missed there (± is one standard error over rows; rows about one person or "
            "work are not independent)."
        )
    if audit["oracle"] is None:
        sentences.append(
            "No oracle: even a model that never saw the rows gets some answer tokens right, so "
            "what is left is counted from 0. To make one, run the same YAML file with "
            "preset=exact and another output, and pass it as --oracle."
        )
    elif audit["oracle"] == "itself":
        sentences.append(
            "This run is itself an oracle: its model never saw the unlearn rows. It was compared "
            "with itself, so it passes whatever it knows; to test it, pass an oracle of another "
            "seed as --oracle."
        )
    missing = [name for name in _ATTACKS if name not in audit["settings"]["attacks"]]
    untried = [f"{name} (not asked for)" for name in missing]
    untried += [f"{one['attack']} ({one['reason']})" for one in audit["skipped"]]
    return [*sentences, listed("Not tried", untried, warning=True)]
