"""What an audit says, in words: removed, survived, harmed, what comes back, and how sure that is.

Reads the content of ``audit.json`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from grail.reporting.audit.inside import frozen_moved, inside_sentences
from grail.reporting.audit.outcome import (
    BACK,
    BY_WEIGHT,
    NOT,
    NOTHING,
    PARTLY,
    REMOVED,
    UNDECIDED,
    WORDS,
    Known,
    as_it_is,
    attacked,
    decisive,
    domains,
    known,
    level,
    metrics,
    outcome,
    rising,
    sure,
)
from grail.reporting.audit.written import written_sentences
from grail.reporting.run.verdict import WARNING
from grail.reporting.tables import nats, percent, plus_minus

HEADLINES = {
    REMOVED: "Removed: no attack that was tried and decides brings it back.",
    NOTHING: "Nothing to remove: it was not known before.",
    UNDECIDED: "Removed as it stands; whether it comes back under attack cannot be told from this "
    "audit (see below).",
    BACK: "Removed as it stands, but it comes back under attack.",
    PARTLY: "Only partly removed.",
    NOT: "Not unlearned: the unlearned model knows what it had to lose.",
}


def audit_verdict(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"outcome", "outcomes", "passed", "sentences"} for the content of ``audit.json``.

    The outcome is one of REMOVED, NOTHING, UNDECIDED, BACK, PARTLY, NOT; ``outcomes`` has one for
    each domain and metric; passed means REMOVED, with every domain under some attack that decides
    and none that broke off, nothing badly harmed, and no frozen entry moved.
    """
    outcomes = {
        domain: {metric: outcome(found, domain, metric) for metric in metrics(found)}
        for domain in domains(found)
    }
    every = [word for own in outcomes.values() for word in own.values()]
    worst = max(every, key=BY_WEIGHT.index) if every else UNDECIDED
    harm = _harm(found)
    harmed = any(sentence.startswith(WARNING) for sentence in harm)
    passed = worst == REMOVED and not harmed and _attacked(found) and not frozen_moved(found)
    alarm = "" if worst in (REMOVED, NOTHING) else WARNING
    sentences = [
        f"{alarm}{HEADLINES[worst]}",
        *_removed(found, outcomes),
        *_survived(found),
        *harm,
        *_returns(found),
        *written_sentences(found),
        *inside_sentences(found),
        *_doubts(found),
    ]
    return {
        "outcome": worst,
        "outcomes": outcomes,
        "passed": passed,
        "sentences": [sentence for sentence in sentences if sentence],
    }


# -- sentences ---------------------------------------------------------------------------------


def _removed(found: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say per metric what was known before and is known now, on train rows."""
    sentences = []
    for metric in metrics(found):
        texts = []
        for domain, own in outcomes.items():
            before, now = (
                as_it_is(found, model, domain, metric)[0] for model in ("vanilla", "unlearned")
            )
            oracle = "" if now.beyond is None else f"; oracle {percent(now.value - now.beyond)}"
            values = f"{percent(before.value)} → {plus_minus(now.value, now.error)}"
            texts.append(f"{domain}: {own[metric]} ({values} % {WORDS[metric]}{oracle}; n {now.n})")
        sentences.append(f"On train rows, {'; '.join(texts)}.")
    return sentences


def _survived(found: Mapping[str, Any]) -> list[str]:
    """Say where the same facts, asked otherwise, are still known."""
    limits = found["settings"]["thresholds"]
    told = []
    for domain in domains(found):
        for metric in metrics(found)[:1]:
            for now in as_it_is(found, "unlearned", domain, metric, "val"):
                if level(now) > limits["left"]:
                    value = plus_minus(now.value, now.error)
                    told.append(
                        f"{domain} ({value} % {WORDS[metric]} on val rows{_above(now)}; n {now.n})"
                    )
    return [f"{WARNING}Survived, asked in other words: {'; '.join(told)}."] if told else []


def _harm(found: Mapping[str, Any]) -> list[str]:
    """Say what retain rows and general text lost."""
    limits = found["settings"]["thresholds"]
    harmed, kept = [], []
    for row in _plain_rows(found):
        if row["metric"] == "RS":
            fall = -(row.get("change") or 0.0)
            text = (
                f"{row['domain']}, {row['part']} rows ({percent(row['value'] + fall)} → "
                f"{plus_minus(row['value'], row['error'])}; n {row['n']})"
            )
            (harmed if fall > limits["harmed"] else kept).append(text)
        if (row["side"], row["metric"]) == ("general", "NLL"):
            rise = row.get("change") or 0.0
            text = (
                f"general text ({nats(row['value'] - rise)} → {nats(row['value'])} nats/token; "
                f"n {row['n']})"
            )
            (harmed if rise > limits["harmed_nll"] else kept).append(text)
    found_harm = [f"{WARNING}Harmed: {'; '.join(harmed)}."] if harmed else []
    return found_harm + ([f"Kept: {'; '.join(kept)}."] if kept else [])


def _plain_rows(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in found["measured"]:
        if (entry["model"], entry["attack"]) == ("unlearned", "plain"):
            yield from entry["rows"]


def _returns(found: Mapping[str, Any]) -> list[str]:
    """Say what comes back under which attack, and which attacks bring nothing back."""
    back: list[str] = []
    open_: list[str] = []
    for domain in domains(found):
        for metric in metrics(found):
            strongest: dict[str, Known] = {}
            for after in filter(partial(sure, found), rising(found, domain, metric)):
                old = strongest.get(after.attack)
                if old is None or after.value > old.value:
                    strongest[after.attack] = after
            for after in strongest.values():
                text = (
                    f"{domain} by {named(after)} to {percent(after.value)} % {WORDS[metric]} "
                    f"({plus_minus(after.change or 0.0, after.change_error, '+')} points"
                    f"{_above(after)}; n {after.n})"
                )
                (back if decisive(found, after) else open_).append(text)
    return [
        f"{WARNING}Comes back: {'; '.join(back)}." if back else "",
        f"{WARNING}Rises, but without an oracle it cannot be told what comes back from what is "
        f"merely learnt anew: {'; '.join(open_)}."
        if open_
        else "",
        *_held(found),
    ]


def _attacked(found: Mapping[str, Any]) -> bool:
    """Tell whether each domain was under an attack that can decide, and none broke off."""
    broken = any(one["attack"].endswith(" on unlearned") for one in found["skipped"])
    tried = [any(any(attacked(found, d, m)) for m in metrics(found)) for d in domains(found)]
    return bool(tried) and all(tried) and not broken


def _held(found: Mapping[str, Any]) -> list[str]:
    """Name the attacks that are not sure to bring it back, with the most points that each brings.

    Some raise it much, but no further than they raise it in a model that never saw the rows, or
    than what may be left: that is learnt, not back.
    """
    limit = found["settings"]["thresholds"]["back"]
    places = [(domain, metric) for domain in domains(found) for metric in metrics(found)]
    risen = [after for place in places for after in rising(found, *place)]
    won = {after.attack for after in risen if sure(found, after)}
    unsure = _most(after for after in risen if after.attack not in won)
    every = _most(after for place in places for after in attacked(found, *place))
    others = [after for after in every if after.attack not in won | {a.attack for a in unsure}]
    much = [after for after in others if (after.change or 0) > limit]
    little = [after for after in others if after not in much]
    return [
        f"{words} (points at most): {', '.join(f'{a.attack} {_rise(a)}' for a in some)}."
        for words, some in (
            (f"{WARNING}Rises, but these rows are too few to be sure", unsure),
            ("Raises it, but to no more than the oracle shows or may be left", much),
            ("Brings back little or nothing", little),
        )
        if some
    ]


def _most(some: Iterable[Known]) -> list[Known]:
    """Return what each attack raises most, in order of first appearance."""
    most: dict[str, Known] = {}
    for after in some:
        old = most.get(after.attack)
        if old is None or (after.change or 0) > (old.change or 0):
            most[after.attack] = after
    return list(most.values())


def _rise(after: Known) -> str:
    return plus_minus(after.change or 0.0, after.change_error, "+")


def named(after: Known) -> str:
    """Return an attack in words: "quantise int8", "relearn-few after 10 steps"."""
    if after.amount == "area":
        return f"{after.attack}, area"
    if after.attack.startswith("relearn"):
        return f"{after.attack} after {after.amount} steps"
    return f"{after.attack} {after.amount}"


def _doubts(found: Mapping[str, Any]) -> list[str]:
    """Say how small a difference these rows could show, and what was not tried."""
    limits = found["settings"]["thresholds"]
    sentences = []
    changes = [
        (after.change_error, after.n)
        for domain in domains(found)
        for after in known(found, "unlearned", domain, "train", "US")
        if after.change_error is not None
    ]
    if changes:
        error, fewest = max(e for e, _ in changes), min(n for _, n in changes)
        sentences.append(
            f"How sure: the fewest rows behind a number are {fewest}, and the largest standard "
            f"error of a change is {percent(error)} points, so that a change below "
            f"{percent(limits['errors'] * error)} points could be missed there (± is one standard "
            "error over rows; rows about one person or work are not independent)."
        )
    if found["oracle"] is None:
        sentences.append(
            "No oracle: a model that never saw the rows gets some answer tokens right, too, so "
            "what is left is counted from 0. To have one, run the same YAML file with "
            "preset=exact and an output of its own, and give that as --oracle."
        )
    elif found["oracle"] == "itself":
        sentences.append(
            "This run is an oracle itself: its model never saw the unlearn rows. It was compared "
            "with itself and passes whatever it knows; an oracle of another seed (--oracle) would "
            "be a test of it."
        )
    asked = set(found["settings"]["attacks"])
    every = ("quantise", "prune", "relearn", "paraphrase", "sample", "extract")
    missing = [attack for attack in every if attack not in asked]
    reasons = [f"{one['attack']} ({one['reason']})" for one in found["skipped"]]
    untried = [*(f"{name} (not asked for)" for name in missing), *reasons]
    return sentences + ([f"{WARNING}Not tried: {'; '.join(untried)}."] if untried else [])


def _above(now: Known) -> str:
    if now.beyond is None:
        return ""
    return f", {plus_minus(now.beyond, now.beyond_error, '+')} above the oracle"
