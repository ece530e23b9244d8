"""What a run achieved, in plain sentences; the thresholds behind the words stand here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grail.reporting.run.measured import AREAS
from grail.reporting.tables import HUGE, arrow, domains, nats, pair, parts, percent
from grail.results import Results

FORGOTTEN_US = 85.0
PARTLY_FORGOTTEN_US = 50.0
KEPT_RS = 85.0
DAMAGED_RS = 70.0
UNKNOWN_TO_VANILLA_US = 10.0
KNOWN_TO_VANILLA_RS = 90.0
VAL_GAP_POINTS = 10.0
UNCHANGED_NLL_RISE = 0.1
LARGE_NLL_RISE = 0.5
DESTROYED_PPL = HUGE
FEW_ROWS = 10
TOLD_ROUGE = 50.0
LOST_ROUGE = 30.0
CHANCE_AUC = 50.0
CLEAR_ERRORS = 2.5  # standard errors from chance: luck, of four AUCs, in one run out of forty
STILL_KNOWN, UNTOLD = "still known", "not to be told apart"
WARNING = "Warning: "

GRADES = {
    "US": ((FORGOTTEN_US, "forgotten"), (PARTLY_FORGOTTEN_US, "partly forgotten")),
    "RS": ((KEPT_RS, "kept"), (DAMAGED_RS, "damaged a little")),
}
LOWEST = {"US": "still known", "RS": "lost"}
SIDES = {"US": "unlearn", "RS": "retain"}


def verdict(results: Results) -> list[str]:
    """Return 4 to 9 sentences: removed, kept, harmed, frozen, and what weakens the evidence.

    Every success is graded on each part by the thresholds above, and against what the vanilla
    model knew; what was not measured is said.
    Sentences that need attention start with "Warning: ".
    """
    sentences = [
        f"To be removed: {_graded(results, 'US')}.",
        f"To be kept: {_graded(results, 'RS')}.",
        _harm(results),
        _freezing(results.freezing),
    ]
    doubts = (_membership(results), _val_gap(results), *_answers(results), _weak(results))
    return [s for s in (*sentences, *doubts) if s]


def _graded(results: Results, metric: str) -> str:
    """Grade one side of every domain: "privacy: forgotten (US 93.1 train, 88.0 val)"."""
    found = []
    for domain in domains(results):
        values = _values(results, domain, metric)
        if not values:
            found.append(f"{domain}: not measured")
            continue
        before = _values(results, domain, metric, "vanilla")
        words = {part: _grade(metric, v, before.get(part)) for part, v in values.items()}
        same = len(set(words.values())) == 1
        text = ", ".join(
            [*words.values()][:1] if same else [f"{w} on {p}" for p, w in words.items()]
        )
        found.append(f"{domain}: {text} ({_shown(metric, values)})")
    return "; ".join(found) or "no domain was measured"


def _values(
    results: Results, domain: str, metric: str, model: str = "unlearned"
) -> dict[str, float]:
    """Return the measured values of one domain by part."""
    found = {p: results.value(model, domain, SIDES[metric], p, metric) for p in parts(results)}
    return {part: value for part, value in found.items() if value is not None}


def _grade(metric: str, value: float, before: float | None) -> str:
    """Grade a success; what the vanilla model did not know is neither forgotten nor lost."""
    word = next((word for limit, word in GRADES[metric] if value >= limit), LOWEST[metric])
    if before is None:
        return word
    if metric == "US" and before >= PARTLY_FORGOTTEN_US:
        return "hardly known before" if value >= before else "better known than before"
    if metric == "RS" and value < KEPT_RS and value >= before:
        return "kept as far as it was known"
    return word


def _shown(metric: str, values: Mapping[str, float]) -> str:
    return f"{metric} " + ", ".join(f"{percent(v)} {part}" for part, v in values.items())


def _harm(results: Results) -> str:
    """Say what happened to general text, and name unlearn rows whose text is destroyed."""
    found = []
    for domain in dict.fromkeys(row.domain for row in results.rows if row.side == "general"):
        for part in parts(results, "general")[-1:]:  # val where there is any: it was held out
            before, after = pair(results, domain, "general", part, "NLL")
            if before is not None and after is not None:
                found.append(_general(before, after))
    text = " ".join(found) or "General text was not measured."
    destroyed = [
        domain
        for domain in domains(results)
        if any(
            (results.value("unlearned", domain, "unlearn", part, "PPL") or 0) > DESTROYED_PPL
            for part in parts(results)
        )
    ]
    if not destroyed:
        return text
    return (
        f"{text} On the unlearn rows of {', '.join(destroyed)} the PPL is above 1e9: "
        "this text is destroyed rather than forgotten."
    )


def _general(before: float, after: float) -> str:
    """Grade the change of the NLL on general text, in nats/token."""
    rise = after - before
    numbers = f"({nats(before)} → {nats(after)} nats/token)"
    if abs(rise) <= UNCHANGED_NLL_RISE:
        return f"General text is unharmed: its NLL hardly changed {numbers}."
    if rise < 0:
        return f"General text is unharmed: its NLL fell by {nats(-rise)} {numbers}."
    harm = "badly harmed" if rise > LARGE_NLL_RISE else "harmed a little"
    alarm = WARNING if rise > LARGE_NLL_RISE else ""
    return f"{alarm}General text is {harm}: its NLL rose by {nats(rise)} {numbers}."


def _freezing(freezing: Mapping[str, Any]) -> str:
    """Say whether the frozen entries are bit-identical before and after."""
    if not freezing:
        return f"{WARNING}no proof of freezing was recorded."
    frozen, entries, changed = (freezing.get(key) for key in ("frozen", "entries", "changed"))
    if frozen == 0:
        return f"Nothing was frozen: all {entries:,} trainable entries were free to move."
    before, after = freezing.get("sha256_before"), freezing.get("sha256_after")
    of = "" if frozen is None else f" of {frozen:,}"
    if changed == 0 and before is not None and before == after:
        return f"Freezing held: 0{of} frozen entries changed (digests equal)."
    digests = "equal" if before is not None and before == after else "NOT equal"
    return (
        f"{WARNING}FREEZING FAILED: {changed}{of} frozen entries changed (digests {digests}). "
        "Do not use this run."
    )


def _membership(results: Results) -> str:
    """Say where the unlearn rows can be told from held-out ones."""
    found = [text for text in (_told_apart(results, domain) for domain in domains(results)) if text]
    if not found:
        return ""
    alarm = WARNING if any(STILL_KNOWN in text for text in found) else ""
    return f"{alarm}Unlearn rows beside held-out rows: {'; '.join(found)}."


def _told_apart(results: Results, domain: str) -> str:
    """Grade a domain by its largest AUC if that is above chance, else by the one farthest off."""
    place = (domain, "unlearn", "train")
    away: dict[str, float] = {}
    errors: dict[str, float] = {}
    for metric in AREAS:
        area = results.value("unlearned", *place, metric)
        if area is not None:
            away[metric] = area - CHANCE_AUC
            errors[metric] = results.value("unlearned", *place, f"{metric}-error") or 0.0
    if not away:
        return ""
    metric, word = max(away, key=lambda name: away[name]), STILL_KNOWN
    if away[metric] <= CLEAR_ERRORS * errors[metric]:
        metric = max(away, key=lambda name: abs(away[name]))
        shows = abs(away[metric]) > CLEAR_ERRORS * errors[metric]
        word = "less probable than text never seen, which shows too" if shows else UNTOLD
    numbers = f"{arrow(*pair(results, *place, metric), percent)} ± {percent(errors[metric])}"
    return f"{domain}: {word} ({metric} {numbers})"


def _val_gap(results: Results) -> str:
    """Name the domains that other questions than the trained ones still open."""
    found = []
    for domain in domains(results):
        values = _values(results, domain, "US")
        if {"train", "val"} <= set(values) and values["train"] - values["val"] > VAL_GAP_POINTS:
            found.append(f"{domain} ({_shown('US', values)})")
    if not found:
        return ""
    return f"{WARNING}val questions still retrieve more than the train rows: {'; '.join(found)}."


def _answers(results: Results) -> list[str]:
    """Say what greedy answers give away or no longer give, where they were generated."""
    told, gone = [], []
    for domain in domains(results):
        for part in parts(results):
            before, after = pair(results, domain, "unlearn", part, "ROUGE-L")
            if after is not None and after >= TOLD_ROUGE:
                told.append(f"{domain} {part} (ROUGE-L {arrow(before, after, percent)})")
            before, after = pair(results, domain, "retain", part, "ROUGE-L")
            if before is not None and after is not None and before - after >= LOST_ROUGE:
                gone.append(f"{domain} {part} (ROUGE-L {arrow(before, after, percent)})")
    sentences = {
        "greedy answers still tell much of what must be lost": told,
        "greedy answers no longer give much of what must be kept": gone,
    }
    return [f"{WARNING}{text}: {'; '.join(found)}." for text, found in sentences.items() if found]


def _weak(results: Results) -> str:
    reasons = weaknesses(results)
    return f"{WARNING}the evidence is weak, because {'; '.join(reasons)}." if reasons else ""


def weaknesses(results: Results) -> list[str]:
    """Say why the numbers prove little, where they do: few rows, or a model that knew little."""
    reasons = [r for domain in domains(results) for r in _domain_doubts(results, domain)]
    few = [row.n for row in results.rows if row.metric in SIDES and row.n < FEW_ROWS]
    if few:
        rows = "1 row" if min(few) == 1 else f"{min(few)} rows"
        reasons.append(f"some sides have only {rows} (fewer than {FEW_ROWS})")
    return reasons


def _domain_doubts(results: Results, domain: str) -> list[str]:
    """Compare with the vanilla model: only what it knew can be forgotten or kept."""
    doubts = []
    for metric, side in SIDES.items():
        vanilla = _values(results, domain, metric, "vanilla")
        unlearned = _values(results, domain, metric)
        if set(unlearned) - set(vanilla):
            doubts.append(f"the vanilla model was not measured on all {side} rows of {domain}")
        unknown = {part: v for part, v in vanilla.items() if not _knew(metric, v)}
        if unknown:
            shown = _shown(metric, unknown)
            doubts.append(f"the vanilla model did not know {side} rows of {domain} ({shown})")
    return doubts


def _knew(metric: str, value: float) -> bool:
    return value <= UNKNOWN_TO_VANILLA_US if metric == "US" else value >= KNOWN_TO_VANILLA_RS
