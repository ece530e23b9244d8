"""What is known under which attack, and what that makes of each domain; no words but outcomes.

Reads the content of ``audit.json`` alone; the thresholds stand in its settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KNOWN = {"US": (100.0, -1.0), "ES": (0.0, 1.0)}
"""Metric of unlearn rows -> (a, b): a + b * value is what is known, in percent."""

WORDS = {
    "US": "answer tokens right",
    "ES": "answer extractable",
}

REMOVED, BACK, UNDECIDED, PARTLY, NOT, NOTHING = (
    "removed",
    "comes back",
    "undecided",
    "partly removed",
    "not unlearned",
    "nothing to remove",
)
BY_WEIGHT = (NOTHING, REMOVED, UNDECIDED, BACK, PARTLY, NOT)
"""Outcomes from good to bad; a run's is the worst of its domains'."""

DESCRIBING = ("interpolate",)
"""Attacks that only describe: whoever holds the vanilla model needs no attack."""


@dataclass(frozen=True)
class Known:
    """What a model knows of unlearn rows, in percent, with differences in points.

    Attributes:
        attack: Under which attack.
        amount: And how strong.
        value: Known, 0-100.
        error: Its standard error, as of the two below; None where it could not be computed.
        change: Against the model without the attack (without attack: against vanilla).
        change_error: Of ``change``.
        beyond: Against the oracle; None without one.
        beyond_error: Of ``beyond``.
        n: Rows.
    """

    attack: str
    amount: str
    value: float
    n: int
    error: float | None = None
    change: float | None = None
    change_error: float | None = None
    beyond: float | None = None
    beyond_error: float | None = None


def known(
    found: Mapping[str, Any], model: str, domain: str, part: str, metric: str
) -> Iterator[Known]:
    """Yield what one model knows of one domain's unlearn rows: as it is, and under each attack."""
    offset, sign = KNOWN[metric]
    for entry in found["measured"]:
        for row in entry["rows"]:
            place = (row["domain"], row["side"], row["part"], row["metric"])
            if entry["model"] == model and place == (domain, "unlearn", part, metric):
                points = {
                    k: sign * row[k] + 0.0 for k in ("change", "beyond") if k in row
                }  # no -0.0
                errors = {k: row.get(k) for k in ("error", "change_error", "beyond_error")}
                about = (entry["attack"], entry["amount"], offset + sign * row["value"], row["n"])
                yield Known(*about, **points, **errors)


def metrics(found: Mapping[str, Any]) -> list[str]:
    """Return the metrics of what is known that were measured, token accuracy first."""
    measured = {row["metric"] for entry in found["measured"] for row in entry["rows"]}
    return [metric for metric in KNOWN if metric in measured]


def domains(found: Mapping[str, Any], side: str = "unlearn") -> list[str]:
    """Return the domains in the order in which they were measured."""
    rows = (row for entry in found["measured"] for row in entry["rows"])
    return list(dict.fromkeys(row["domain"] for row in rows if row["side"] == side))


def outcome(found: Mapping[str, Any], domain: str, metric: str) -> str:
    """Judge one domain, in this order; by its train rows, where val rows are not named.

    NOTHING: vanilla knew at most ``left`` (with an oracle: at most ``unchanged`` more than it).
    NOT: what is known fell by at most ``unchanged``, and the run is no oracle itself. PARTLY: more
    than ``left`` is still known (with an oracle: more than it knows), of train or of val rows.
    BACK: an attack raises it by more than ``back``, surely, to more than ``left`` (above the
    oracle's). UNDECIDED: one does, but not surely; or relearning does, and there is no oracle to
    show how much of that is merely learnt anew.
    """
    limits = found["settings"]["thresholds"]
    (vanilla,) = as_it_is(found, "vanilla", domain, metric)
    (now,) = as_it_is(found, "unlearned", domain, metric)
    if vanilla.beyond is not None and vanilla.beyond <= limits["unchanged"]:
        return NOTHING
    if vanilla.value <= limits["left"]:
        return NOTHING
    if found["oracle"] != "itself" and -(now.change or 0.0) <= limits["unchanged"]:
        return NOT
    asked_otherwise = as_it_is(found, "unlearned", domain, metric, "val")
    if any(level(known) > limits["left"] for known in (now, *asked_otherwise)):
        return PARTLY
    back = list(rising(found, domain, metric))
    if any(decisive(found, known) and sure(found, known) for known in back):
        return BACK
    return UNDECIDED if back else REMOVED


def attacked(found: Mapping[str, Any], domain: str, metric: str) -> Iterator[Known]:
    """Yield what is known of train rows under the attacks that can decide something."""
    for after in known(found, "unlearned", domain, "train", metric):
        if after.attack not in ("plain", *DESCRIBING) and after.change is not None:
            yield after


def rising(found: Mapping[str, Any], domain: str, metric: str) -> Iterator[Known]:
    """Yield the attacks that raise it by more than ``back`` to more than ``left``."""
    limits = found["settings"]["thresholds"]
    for after in attacked(found, domain, metric):
        if (after.change or 0.0) > limits["back"] and level(after) > limits["left"]:
            yield after


def sure(found: Mapping[str, Any], after: Known) -> bool:
    """Tell whether a rise is more than ``errors`` standard errors of it.

    A single row has no error: what it shows counts as it stands.
    """
    errors = found["settings"]["thresholds"]["errors"]
    return (after.change or 0.0) > errors * (after.change_error or 0.0)


def decisive(found: Mapping[str, Any], after: Known) -> bool:
    """Tell whether an attack that raises what is known decides: relearning needs an oracle.

    And the oracle must have been attacked so, too.
    """
    compared = found["oracle"] is not None and after.beyond is not None
    return compared or not after.attack.startswith("relearn")


def level(now: Known) -> float:
    """Return what is known above the oracle, or in all where there is no oracle."""
    return now.value if now.beyond is None else now.beyond


def as_it_is(
    found: Mapping[str, Any], model: str, domain: str, metric: str, part: str = "train"
) -> list[Known]:
    """Return what a model knows without attack: one, or none where it was not measured."""
    return [k for k in known(found, model, domain, part, metric) if k.attack == "plain"]
