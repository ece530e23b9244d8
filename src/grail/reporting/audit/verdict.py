"""The verdict of an audit in words: removed, harmed, what comes back, and how sure that is.

Reads the content of ``audit.json`` alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grail.reporting.audit.generated import broken_text, generated_warning
from grail.reporting.audit.knowledge import (
    BACK,
    BY_WEIGHT,
    NOT,
    NOTHING,
    PARTLY,
    REMOVED,
    TRACE,
    UNDECIDED,
    WORDS,
    Case,
    Known,
    audit_domains,
    judge_all,
    strongest,
)
from grail.reporting.audit.lights import not_asked
from grail.reporting.audit.moved import frozen_moved, moved_sentence
from grail.reporting.tables import WARNING, listed, nats, percent, plus_minus
from grail.results import GUESS

HEADLINES = {
    REMOVED: "Removed: no conclusive attack brings it back.",
    NOTHING: "Nothing to remove: it was not known before.",
    TRACE: "Removed, but it shows: less is known than a model that never saw the rows can guess.",
    UNDECIDED: "Undecided: removed without attack, but this audit cannot tell whether attacks "
    "bring it back (see below).",
    BACK: "Removed without attack, but it comes back under attack.",
    PARTLY: "Only partly removed.",
    NOT: "Not unlearned: the unlearned model still knows the unlearn rows.",
}


def audit_verdict(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"outcome", "outcomes", "passed", "sentences"} for the content of ``audit.json``.

    ``outcomes`` is {domain: {metric: outcome}}, ``outcome`` the worst of them. ``passed`` means
    REMOVED, with a conclusive attack on every domain and none of which nothing was measured,
    nothing badly harmed, no broken text, and no frozen entry moved.
    """
    cases = judge_all(audit)
    outcomes: dict[str, dict[str, str]] = {}
    for case in cases:
        outcomes.setdefault(case.domain, {})[case.metric] = case.outcome
    worst = max((c.outcome for c in cases), key=BY_WEIGHT.index, default=UNDECIDED)
    harmed, unharmed = (
        [text for _, worse, text in harm(audit) if worse is w] for w in (True, False)
    )
    broken, sound = broken_text(audit)
    attacked = {case.domain for case in cases if case.attacks}
    tried = bool(outcomes) and attacked == set(outcomes) and not _broke_off(audit)
    alarm = "" if worst in (REMOVED, NOTHING) else WARNING
    alone = "No oracle: " * (worst == UNDECIDED and audit["oracle"] in (None, GUESS))
    headline = HEADLINES[worst]
    if alone:
        headline = headline[0].lower() + headline[1:]
    sentences = [
        f"{alarm}{alone}{headline}",
        *_against_the_oracle(audit, cases),
        listed("Below guessing, which is a trace", _traces(audit, cases), warning=True),
        listed("Broken text", broken, warning=True),
        *_removed(cases),
        listed("Still known in other words", _other_words(audit, cases), warning=True),
        listed("Harmed", harmed, warning=True),
        listed("Kept", unharmed),
        listed("Speaks", sound),
        *_under_attack(audit, cases),
        generated_warning(audit),
        moved_sentence(audit),
        *_retraining(audit),
        *_doubts(audit, cases, spoken=bool(broken or sound)),
    ]
    passed = worst == REMOVED and tried and not (harmed or broken or frozen_moved(audit))
    return {
        "outcome": worst,
        "outcomes": outcomes,
        "passed": passed,
        "sentences": [sentence for sentence in sentences if sentence],
    }


def _broke_off(audit: Mapping[str, Any]) -> bool:
    """Tell whether an attack on the unlearned model broke off; relearning, by every attacker."""
    done = {e["attack"].partition("@")[0] for e in audit["measured"] if e["model"] == "unlearned"}
    names = (one["attack"] for one in audit["skipped"])
    broke = (n.removesuffix(" on unlearned") for n in names if n.endswith(" on unlearned"))
    return any(name.partition("@")[0] not in done for name in broke)


def _against_the_oracle(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Say for each domain how far each attack ends above the oracle at most, with intervals."""
    errors = audit["settings"]["thresholds"]["errors"]
    whose = {"given": "the oracle's", GUESS: "the guess"}.get(audit["oracle"])
    sentences = []
    for case in cases:
        rows = [row for row in (case.now, *case.val, *case.attacks) if row.compared]
        if rows and case.metric == "US" and whose:
            worst = strongest(rows, size=lambda row: row.level)
            sentences.append(
                f"{case.domain}, answer tokens right above {whose}, in points, worst case "
                f"[± {errors:g} standard errors]: "
                f"{'; '.join(f'{row.name} {row.above(errors)}' for row in worst)}."
            )
    return sentences


def _traces(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    errors = audit["settings"]["thresholds"]["errors"]
    return [
        f"{case.domain}, {part} rows ({row.above(errors)} points; n {row.n})"
        for case in cases
        for part, row in (("train", case.now), *(("val", row) for row in case.val))
        if row in case.below
    ]


def _removed(cases: Sequence[Case]) -> list[str]:
    """Say per metric what was known before and is known now, on train rows."""
    texts: dict[str, list[str]] = {}
    for case in cases:
        now, words = case.now, WORDS[case.metric]
        name = "oracle" if now.likewise else "never knew"
        oracle = "" if now.never is None else f"; {name} {percent(now.never)}"
        values = f"{percent(case.vanilla.value)} → {plus_minus(now.value, now.error)} % {words}"
        text = f"{case.domain}: {case.outcome} ({values}{oracle}; n {now.n})"
        texts.setdefault(case.metric, []).append(text)
    return [f"On train rows, {'; '.join(items)}." for items in texts.values()]


def _other_words(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Say where val rows, the same facts in other words, are still known (first metric only)."""
    left = audit["settings"]["thresholds"]["left"]
    return [
        f"{case.domain} ({plus_minus(now.value, now.error)} % {WORDS[case.metric]} on val rows"
        f"{_above(now)}; n {now.n})"
        for case in cases
        for now in case.val
        if case.metric == cases[0].metric and now.level > left
    ]


def harm(audit: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Return (domain, whether beyond the thresholds, text) for all that must be kept.

    General text has the domain "general".
    """
    limits = audit["settings"]["thresholds"]
    found = []
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
        found.append(("general" if row["side"] == "general" else row["domain"], worse, text))
    return found


def _above(row: Known) -> str:
    """Return the points above the oracle or the guess, after a comma; "" without either."""
    points = plus_minus(row.beyond, row.beyond_error, "+")
    name = "oracle" if row.likewise else "guess"
    return f", {points} above the {name}" if row.compared else ""


def _under_attack(audit: Mapping[str, Any], cases: Sequence[Case]) -> list[str]:
    """Say what each attack brings back: domain by domain where it surely does, else at most."""
    limit = audit["settings"]["thresholds"]["back"]
    back, learnt, unsure, level, held = (list[str]() for _ in range(5))
    for case in cases:
        for row in strongest(case.sure, size=lambda row: row.level):
            points = plus_minus(row.change, row.change_error, "+")
            (back if row in case.back else learnt).append(
                f"{case.domain} by {row.name} to {percent(row.value)} % {WORDS[case.metric]} "
                f"({points} points{_above(row)}; n {row.n})"
            )
    won = {row.attack for case in cases for row in case.sure}
    rising = [row for case in cases for row in case.rising]
    rest = (row for case in cases for row in case.attacks if row.attack not in won)
    for row in strongest(rest, size=lambda row: (row in rising, row.change or 0.0)):
        high = level if (row.change or 0.0) > limit else held
        points = plus_minus(row.change, row.change_error, "+")
        (unsure if row in rising else high).append(f"{row.attack} {points}")
    bare = any(row.name == "adapter taken off" for case in cases for row in case.back)
    anew = "Rises, but without an oracle this cannot be told from guessing or learning anew"
    few = "Rises, but there are too few rows to be sure (points at most)"
    return [
        listed("Comes back or stays", back, warning=True),
        f"{WARNING}The model under the adapter knows the rows: whoever has it needs no attack. "
        "Give away merged weights only." * bare,
        listed(anew, learnt, warning=True),
        listed(few, unsure, warning=True),
        listed("Rises, but not above the oracle or what may be left (points at most)", level),
        listed("Brings back little or nothing (points at most)", held),
    ]


def _retraining(audit: Mapping[str, Any]) -> list[str]:
    """Say what training took beside the oracle's, and whether exact retraining is the better way.

    It is possible where the run itself taught all that was unlearned and kept.
    """
    own, other = (audit["seconds"].get(name) for name in ("unlearned", "oracle"))
    times, dearer, known = "", False, "may be cheaper too (grail plan tells)"
    if own is not None and other is not None:
        times = f"Training took {own:g} s here and {other:g} s for the oracle."
        dearer, known = other > own, "is cheaper too"
    possible = (
        "Exact retraining is possible: this run taught the rows, and its retain files hold all "
        f"else that it taught. It leaves nothing to come back and {known}: grail run FILE.yaml "
        f"{audit['retraining']} --output ANOTHER."
    )
    return [possible if audit["retraining"] and not dearer else "", times]


_MAKE_ONE = (
    "To make an oracle of a run that taught the rows (teach: true), run the same YAML file with "
    "preset=exact and another output, and pass it as --oracle. For a given model, give rows of the "
    "same kind that it never saw (domains.NAME.unlearn.heldout) and run again."
)
_GUESSES = {
    True: "the model before unlearning on held-out rows",
    False: "the model from before the facts, after the examples that its teacher reads, if any",
}
"""Whether there were held-out rows -> who guesses."""


def _guessed(audit: Mapping[str, Any]) -> str:
    """Say from which guess what is left is counted, and for what it does not stand."""
    kinds: dict[bool, list[str]] = {}
    for domain, held_out in audit["guess"].items():
        kinds.setdefault(held_out, []).append(domain)
    who = "; ".join(f"{', '.join(own)}: {_GUESSES[kind]}" for kind, own in kinds.items())
    without = [domain for domain in audit_domains(audit) if domain not in audit["guess"]]
    zero = f" What is left of {', '.join(without)} is counted from 0: nothing guessed there."
    return (
        "No oracle: what is left is counted from the guess of a model that never knew, measured as "
        f"follows ({who}). No attack was made on it, so it does not tell what relearning "
        f"teaches anew.{zero * bool(without)} {_MAKE_ONE}"
    )


def _doubts(audit: Mapping[str, Any], cases: Sequence[Case], spoken: bool) -> list[str]:
    """Say how small a difference these rows could show, and what was not tried."""
    sentences = []
    rows = [row for c in cases if c.metric == "US" for row in (c.now, *c.attacks)]
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
            "No oracle, and no guess: even a model that never saw the rows gets some answer "
            f"tokens right, so what is left is counted from 0. {_MAKE_ONE}"
        )
    elif audit["oracle"] == GUESS:
        sentences.append(_guessed(audit))
    elif audit["oracle"] == "itself":
        sentences.append(
            "This run is itself an oracle: its model never saw the unlearn rows. It was compared "
            "with itself, so it passes whatever it knows; to test it, pass an oracle of another "
            "seed as --oracle."
        )
    untried = [f"{name} (not asked for)" for name in not_asked(audit)]
    untried += [f"{one['attack']} ({one['reason']})" for one in audit["skipped"]]
    if not spoken:
        untried.append("broken text (there is no general text to compare with)")
    return [*sentences, listed("Not tried", untried, warning=True)]
