"""What the figures of a run say, check by check, and the thresholds behind the words."""

from collections.abc import Mapping
from typing import Any

from grail.reporting.run.tables import AREAS
from grail.reporting.tables import (
    BAD,
    GOOD,
    HUGE,
    NOTE,
    OPEN,
    Check,
    Pair,
    arrow,
    domains,
    nats,
    pair,
    parts,
    percent,
    worst,
)
from grail.results import GUESS, OWN_WORDS, Results

FORGOTTEN_US = 85.0
PARTLY_FORGOTTEN_US = 50.0
KEPT_RS = 85.0
DAMAGED_RS = 70.0
GUESS_POINTS = 100.0 - FORGOTTEN_US  # above the guess of one that never knew, as the audit has it
NEVER_KNEW = "by a model that never knew"
HELD_POINTS = 10.0  # what rows that are only measured may lose, or win back
UNKNOWN_TO_VANILLA_US = 10.0
KNOWN_TO_VANILLA_RS = 90.0
UNCHANGED_NLL_RISE = 0.1
LARGE_NLL_RISE = 0.5
DESTROYED_PPL = HUGE
FEW_ROWS = 10
REVEALED_ROUGE = 50.0
LOST_ROUGE = 30.0
BROKEN_REPETITION = 20.0  # points of repetition above the vanilla model's
BROKEN_COMPRESSION = 40.0  # percent; a hundred tokens of sound English take more than 50
CHANCE_AUC = 50.0
CLEAR_ERRORS = 2.5  # standard errors from chance: luck, of four AUCs, in one run out of forty

_GRADES = {
    "US": ((FORGOTTEN_US, GOOD, "forgotten"), (PARTLY_FORGOTTEN_US, OPEN, "partly forgotten")),
    "RS": ((KEPT_RS, GOOD, "kept"), (DAMAGED_RS, NOTE, "damaged a little")),
}
_BY_ITSELF = "what the model says by itself about other things"
_LOWEST = {"US": (BAD, "still known"), "RS": (BAD, "lost")}
_SIDES = {"US": "unlearn", "RS": "retain"}
_ASKED = {"US": "to be removed", "RS": "to be kept"}


def run_checks(results: Results) -> list[Check]:
    """Return what was removed, kept, harmed, broken and frozen, and what weakens the evidence.

    Each check has the light and the word of the worst of its figures, by the thresholds above and
    against what the vanilla model knew.
    """
    sides = [_graded(results, domain, metric) for metric in _SIDES for domain in domains(results)]
    return [
        *(sides or [Check(OPEN, "no domain was measured", "to be removed")]),
        *_only_measured(results),
        *_general_text(results),
        *_text(results),
        _freezing(results.freezing),
        *(check for domain in domains(results) for check in _area(results, domain)),
        *_said(results),
        *_verbatim(results),
        *_weak(results),
    ]


def _graded(results: Results, domain: str, metric: str) -> Check:
    """Grade one side of one domain by its worst part."""
    graded, figures = [], []
    for part in parts(results):
        before, after = pair(results, domain, _SIDES[metric], part, metric)
        guess = results.value(GUESS, domain, _SIDES[metric], part, metric)
        if after is not None:
            known = before is None or before < PARTLY_FORGOTTEN_US
            near = guess is not None and known and after >= guess - GUESS_POINTS
            graded.append((GOOD, "forgotten") if near else _grade(metric, after, before))
            right = _right(metric, before), _right(metric, after)
            never = "" if guess is None else f" ({percent(100 - guess)} % {NEVER_KNEW})"
            figures.append(f"{part} rows {arrow(*right, percent)} %{never}")
    light, word = worst(graded) if graded else (OPEN, "not measured")
    told = f"right answers: {', '.join(figures)}" if figures else ""
    return Check(light, word, f"{domain}, {_ASKED[metric]}", told, f"{domain}.{_SIDES[metric]}")


def _right(metric: str, value: float | None) -> float | None:
    """Return the percentage of answer tokens right that a success stands for."""
    return value if value is None or metric == "RS" else 100 - value


def _grade(metric: str, value: float, before: float | None) -> tuple[str, str]:
    """Grade a success; what the vanilla model did not know is neither forgotten nor lost."""
    grades = (grade for limit, *grade in _GRADES[metric] if value >= limit)
    light, word = next(grades, _LOWEST[metric])
    if before is None:
        return light, word
    if metric == "US" and before >= PARTLY_FORGOTTEN_US:
        return (NOTE, "hardly known before") if value >= before else (BAD, "better known now")
    if metric == "RS" and value < KEPT_RS and value >= before:
        return GOOD, "kept as far as it was known"
    return light, word


def _only_measured(results: Results) -> list[Check]:
    """Say whether what is only measured (earlier requests, the model's own words) has held."""
    found = []
    for row in results.rows:
        if (row.model, row.side, row.metric) == ("unlearned", "check", "RS"):
            before, _ = pair(results, row.domain, "check", row.part, "RS")
            change = 0.0 if before is None else row.value - before
            graded = (BAD, "lost") if change < 0 else (BAD, "known better than before")
            graded = graded if abs(change) > HELD_POINTS else (GOOD, "held")
            subject, told = f"{row.domain}, only measured", f"right answers: {row.part} rows"
            if row.domain == OWN_WORDS:
                subject, told = _BY_ITSELF, "its own tokens:"
            told = f"{told} {arrow(before, row.value, percent)} %"
            found.append(Check(*graded, subject, told, f"{row.domain}.check"))
    return found


def _general_text(results: Results) -> list[Check]:
    """Say what happened to general text, and name unlearn rows whose text is destroyed."""
    found = []
    for domain in dict.fromkeys(row.domain for row in results.rows if row.side == "general"):
        for part in parts(results, "general")[-1:]:  # val where there is any: it was held out
            before, after = pair(results, domain, "general", part, "NLL")
            if before is not None and after is not None:
                found.append(_harm(before, after))
    destroyed = dict.fromkeys(
        row.domain
        for row in results.rows
        if (row.model, row.side, row.metric) == ("unlearned", "unlearn", "PPL")
        and row.value > DESTROYED_PPL
    )
    found = found or [Check(NOTE, "not measured", "general text", place="general")]
    word, told = "destroyed rather than forgotten", "the PPL of its true answers is above 1e9"
    return found + [Check(NOTE, word, f"{domain}, to be removed", told) for domain in destroyed]


def _harm(before: float, after: float) -> Check:
    """Grade the change of the NLL on general text, in nats/token."""
    rise = after - before
    light, word = (BAD, "badly harmed") if rise > LARGE_NLL_RISE else (NOTE, "harmed a little")
    if rise <= UNCHANGED_NLL_RISE:
        light, word = GOOD, "unharmed"
    numbers = f"NLL {nats(before)} → {nats(after)} nats/token"
    return Check(light, word, "general text", numbers, "general")


def _text(results: Results) -> list[Check]:
    """Say whether greedy answers are text, or the same signs over and over."""
    broken, most = [], (0.0, "")
    for row in results.rows:
        if (row.model, row.metric) != ("unlearned", "Repetition"):
            continue
        place = (row.domain, row.side, row.part)
        before, after = pair(results, *place, "Repetition")
        name = f"{' '.join(place)} {arrow(before, after, percent)} % repeated"
        most = max(most, (row.value, name))
        packed = pair(results, *place, "Compression")
        if row.value - (before or 0.0) > BROKEN_REPETITION or _shrunk(packed):
            broken.append(f"{name}, compressed to {arrow(*packed, percent)} %")
    if broken:
        return [Check(BAD, "broken text", "answers", "; ".join(broken), "text")]
    return [Check(GOOD, "no broken text", "answers", f"at most {most[1]}", "text")] * bool(most[1])


def _shrunk(packed: Pair) -> bool:
    before, after = packed
    known = after is not None and after < BROKEN_COMPRESSION
    return known and (before is None or before >= BROKEN_COMPRESSION)


def _freezing(freezing: Mapping[str, Any]) -> Check:
    """Say whether the frozen entries are bit-identical before and after."""
    subject, place = "frozen entries", "freezing"
    if not freezing:
        return Check(BAD, "no proof was recorded", subject, place=place)
    frozen, entries, changed = (freezing.get(key) for key in ("frozen", "entries", "changed"))
    if frozen == 0:
        all_free = f"all {entries:,} trainable entries were free to move"
        return Check(NOTE, "nothing was frozen", subject, all_free, place)
    before, after = freezing.get("sha256_before"), freezing.get("sha256_after")
    equal = before is not None and before == after
    of = "" if frozen is None else f" of {frozen:,}"
    numbers = f"{changed}{of} changed, digests {'equal' if equal else 'NOT equal'}"
    if changed == 0 and equal:
        return Check(GOOD, "unchanged bit for bit", subject, numbers, place)
    return Check(BAD, "FREEZING FAILED", subject, f"{numbers}; do not use this run", place)


def _area(results: Results, domain: str) -> list[Check]:
    """Say whether the unlearn rows of a domain can be told from held-out ones.

    By its largest AUC if that is above chance, else by the one farthest off.
    """
    place = (domain, "unlearn", "train")
    areas = {metric: results.value("unlearned", *place, metric) for metric in AREAS}
    off = {metric: area - CHANCE_AUC for metric, area in areas.items() if area is not None}
    if not off:
        return []
    errors = {m: results.value("unlearned", *place, f"{m}-error") or 0.0 for m in off}
    metric, graded = max(off, key=lambda name: off[name]), (OPEN, "still recognised as known")
    if off[metric] <= CLEAR_ERRORS * errors[metric]:
        metric, graded = max(off, key=lambda name: abs(off[name])), (GOOD, "cannot be told apart")
        if abs(off[metric]) > CLEAR_ERRORS * errors[metric]:
            graded = (NOTE, "less probable than unseen text, which also shows")
    numbers = f"{metric} {arrow(*pair(results, *place, metric), percent)}"
    figures = f"{numbers} ± {percent(errors[metric])}"
    return [Check(*graded, f"{domain}, against rows never seen", figures)]


def _said(results: Results) -> list[Check]:
    """Say where greedy answers still reveal the facts, or have degraded on retain rows."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for domain, part in ((d, p) for d in domains(results) for p in parts(results)):
        for metric, side in _SIDES.items():
            before, after = both = pair(results, domain, side, part, "ROUGE-L")
            fell = None not in both and before - after >= LOST_ROUGE  # type: ignore[operator]
            if (metric == "US" and (after or 0.0) >= REVEALED_ROUGE) or (metric == "RS" and fell):
                shown = f"{part} rows {arrow(*both, percent)}"
                told.setdefault((metric, domain, _ASKED[metric]), []).append(shown)
    words = {
        "US": (OPEN, "greedy answers still reveal much"),
        "RS": (NOTE, "greedy answers have degraded"),
    }
    return [
        Check(*words[metric], f"{domain}, {asked}", f"ROUGE-L: {', '.join(figures)}")
        for (metric, domain, asked), figures in told.items()
    ]


def _verbatim(results: Results) -> list[Check]:
    """Say where answers are still given word for word: token by token, that can look forgotten.

    The first token may have been pushed down, and the same word begun by another one.
    """
    found = []
    for domain in domains(results):
        both = pair(results, domain, "unlearn", "train", "Verbatim")
        if both[1]:
            shown = (
                f"answers to train rows with all words of the true one: {arrow(*both, percent)} %"
            )
            subject = f"{domain}, {_ASKED['US']}"
            found.append(Check(OPEN, "some answers are still given word for word", subject, shown))
    return found


def _weak(results: Results) -> list[Check]:
    reasons = weaknesses(results)
    return [Check(OPEN, "weak", "the evidence", "; ".join(reasons))] if reasons else []


def weaknesses(results: Results) -> list[str]:
    """Say why the numbers prove little, where they do: few rows, or a model that knew little."""
    reasons = [r for domain in domains(results) for r in _vanilla_doubts(results, domain)]
    few = [row.n for row in results.rows if row.metric in _SIDES and row.n < FEW_ROWS]
    if few:
        rows = "1 row" if min(few) == 1 else f"{min(few)} rows"
        reasons.append(f"some sides have only {rows} (fewer than {FEW_ROWS})")
    return reasons


def _vanilla_doubts(results: Results, domain: str) -> list[str]:
    """Check the vanilla model: only what it knew can be forgotten or kept."""
    doubts = []
    for metric, side in _SIDES.items():
        pairs = {part: pair(results, domain, side, part, metric) for part in parts(results)}
        if any(before is None and after is not None for before, after in pairs.values()):
            doubts.append(f"the vanilla model was not measured on all {side} rows of {domain}")
        known = {part: before for part, (before, _) in pairs.items() if before is not None}
        unknown = [f"{percent(v)} {part}" for part, v in known.items() if not _knew(metric, v)]
        if unknown:
            shown = f"{metric} {', '.join(unknown)}"
            doubts.append(f"the vanilla model did not know {side} rows of {domain} ({shown})")
    return doubts


def _knew(metric: str, value: float) -> bool:
    return value <= UNKNOWN_TO_VANILLA_US if metric == "US" else value >= KNOWN_TO_VANILLA_RS
