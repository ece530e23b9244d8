"""What each model knows of the unlearn rows under each attack, and the outcome of each domain.

Reads the content of ``audit.json`` alone, with the thresholds in its settings.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grail.results import GUESS

AUDIT_FORMAT = 2
"""Of ``audit.json``; raised when an older one must not be read as a current one."""

WORDS = {"US": "answer tokens right", "ES": "answer extractable"}
"""Metric of unlearn rows -> what is known, in words."""

ROUGE = "ROUGE-L"
"""What is measured of answers that are generated; it decides nothing."""

REMOVED, TRACE, BACK, UNDECIDED, PARTLY, NOT, NOTHING = (
    "removed",
    "below guessing",
    "comes back",
    "undecided",
    "partly removed",
    "not unlearned",
    "nothing to remove",
)
BY_WEIGHT = (NOTHING, REMOVED, TRACE, UNDECIDED, BACK, PARTLY, NOT)
"""Outcomes from good to bad; the outcome of a run is the worst of its domains."""

DESCRIBING = ("interpolate",)
"""Attacks that decide nothing: they need the vanilla model, and who has it needs no attack."""

_OFFSET_AND_SIGN = {"US": (100.0, -1.0), "ES": (0.0, 1.0), ROUGE: (0.0, 1.0)}
"""Metric -> (a, b): a + b * value is what is known, in percent."""


@dataclass(frozen=True)
class Known:
    """What a model knows of unlearn rows under one attack.

    ``value`` is in percent, the differences are in points, each with its standard error: ``change``
    against the model without the attack (without attack: against vanilla), ``beyond`` against the
    oracle under the same attack (``likewise``) or against a guess, which is never attacked. None
    where it was not measured. ``attacker`` is the one of a relearning's worst case.
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
    attacker: str = ""
    likewise: bool = True

    @property
    def level(self) -> float:
        """What is known above the oracle or the guess; without either, all that is known."""
        return self.value if self.beyond is None else self.beyond

    @property
    def relearnt(self) -> bool:
        """Whether the attack teaches, so that only the oracle tells how much of it came back."""
        return self.attack.startswith("relearn")

    @property
    def compared(self) -> bool:
        """Whether ``beyond`` tells what the attack brings: no guess tells what teaching brings."""
        return self.beyond is not None and (self.likewise or not self.relearnt)

    @property
    def never(self) -> float | None:
        """What a model knows that never saw the rows, in percent; None where none tells."""
        return self.value - self.beyond if self.beyond is not None and self.compared else None

    @property
    def gain(self) -> tuple[float, float]:
        """What the attack brings, in points, and its error: relearning, above the oracle."""
        if self.relearnt and self.beyond is not None and self.likewise:
            return self.beyond, self.beyond_error or 0.0
        return self.change or 0.0, self.change_error or 0.0

    @property
    def name(self) -> str:
        """The attack in words: "quantise int8", "relearn-few after 10 steps at 0.002"."""
        amount, of_attack = self.amount, {"plain": "as it is", "speak": "greedy answer"}
        if self.attack == "adapter":
            return "adapter taken off" if amount == "off" else f"adapter times {amount}"
        if self.attack == "sample":
            return f"best of {amount} answers"
        if self.attack == "extract":
            return f"answer with {100 * float(amount):g} % given"
        if self.relearnt and amount != "area":
            at = f" at {self.attacker}" if self.attacker and amount != "0" else ""
            return f"{self.attack} after {amount} steps{at}"
        return of_attack.get(self.attack, f"{self.attack} {amount}")

    def above(self, errors: float) -> str:
        """The points above the oracle with ``errors`` standard errors around; "" without one.

        Or above the guess, but for relearning.
        """
        if self.beyond is None or not self.compared:
            return ""
        around = errors * (self.beyond_error or 0.0)
        low, middle, high = (  # + 0.0: no "-0.0"
            f"{round(self.beyond + sign * around, 1) + 0.0:+.1f}" for sign in (-1, 0, 1)
        )
        return middle if self.beyond_error is None else f"{middle} [{low}, {high}]"


@dataclass(frozen=True)
class Case:
    """One domain, judged by one metric.

    Attributes:
        domain: Its name.
        metric: "US" or "ES".
        outcome: One of ``BY_WEIGHT``.
        vanilla: Train rows of the vanilla model.
        now: Train rows of the unlearned model, without attack.
        val: Val rows likewise; empty where there are none.
        attacks: Train rows under every attack that can decide.
        rising: Those that bring back more than the thresholds allow.
        sure: Those of them that do so by more than ``errors`` standard errors.
        back: Those of them that decide, because they are told from guessing and learning.
        below: Train and val rows that are known less than the oracle can guess, by over ``left``;
            where a guess stands for it, surely so.
        left: Train and val rows of which more than ``left`` is still known (above the oracle, or
            above the guess).
    """

    domain: str
    metric: str
    outcome: str
    vanilla: Known
    now: Known
    val: list[Known]
    attacks: list[Known]
    rising: list[Known]
    sure: list[Known]
    back: list[Known]
    below: list[Known]
    left: list[Known]


def judge(audit: Mapping[str, Any], domain: str, metric: str) -> Case:
    """Judge one domain by its train rows (and, for PARTLY and TRACE, its val rows).

    The first that holds. NOTHING: vanilla knew at most ``left`` (with an oracle: at most
    ``unchanged`` more than it). NOT: what is known fell by at most ``unchanged``, and the run is
    not itself an oracle. PARTLY: more than ``left`` is still known (with an oracle: above it), of
    train or of val rows. BACK: a decisive attack brings it back, surely: relearning beside an
    oracle ends more than ``back`` above it at any point; any other attack raises it by more than
    ``back``, to more than ``left`` (above the oracle). UNDECIDED: an attack raises it as far, but
    not surely, or is not decisive. TRACE: fewer answer tokens are right than the oracle guesses,
    by more than ``left``: whoever compares sees that something was removed.

    Without an oracle, a guess takes its place where nothing is taught: what relearning leaves is
    held if it is at most ``left`` above the guess, and decides nothing otherwise.
    """
    limits = audit["settings"]["thresholds"]
    (vanilla,) = _plain(audit, "vanilla", domain, "train", metric)
    (now,) = _plain(audit, "unlearned", domain, "train", metric)
    val = _plain(audit, "unlearned", domain, "val", metric)
    attacks = [
        row
        for row in known(audit, "unlearned", domain, "train", metric)
        if row.attack not in ("plain", *DESCRIBING) and row.change is not None
    ]
    rising = [
        row
        for row in attacks
        if row.gain[0] > limits["back"]
        and (row.level > limits["left"] or (row.relearnt and row.compared))
    ]
    sure = [row for row in rising if row.gain[0] > limits["errors"] * row.gain[1]]
    below = [row for row in (now, *val) if metric == "US" and _is_below(row, limits)]
    outcome = TRACE if below else REMOVED
    vague = [row for row in (now, *val) if _is_vague(row, limits)]
    outcome = UNDECIDED if rising or vague else outcome
    as_before = vanilla.value - limits["unchanged"]
    back = [row for row in sure if _decides(row, as_before)]
    if back:
        outcome = BACK
    left = [row for row in (now, *val) if row.level > limits["left"]]
    if left:
        outcome = PARTLY
    if audit["oracle"] != "itself" and -(now.change or 0.0) <= limits["unchanged"]:
        outcome = NOT
    above = vanilla.beyond is None or vanilla.beyond > limits["unchanged"]
    if vanilla.value <= limits["left"] or not above:
        outcome = NOTHING
    groups = (attacks, rising, sure, back, below, left)
    return Case(domain, metric, outcome, vanilla, now, val, *groups)


def judge_all(audit: Mapping[str, Any]) -> list[Case]:
    """Judge every domain by every metric."""
    return [judge(audit, d, metric) for d in audit_domains(audit) for metric in metrics(audit)]


def known(audit: Mapping[str, Any], model: str, domain: str, part: str, metric: str) -> list[Known]:
    """Return what one model knows of one domain's unlearn rows: without and under each attack.

    Of relearning, the worst case and, as "relearn-few@ATTACKER", each attacker's curve.
    """
    offset, sign = _OFFSET_AND_SIGN[metric]
    place, rows = (domain, "unlearn", part, metric), []
    for entry in audit["measured"]:
        for row in entry["rows"] if entry["model"] == model else ():
            if (row["domain"], row["side"], row["part"], row["metric"]) == place:
                points = {k: sign * row[k] + 0.0 for k in ("change", "beyond") if k in row}
                errors = {k: row.get(k) for k in ("error", "change_error", "beyond_error")}
                more = {"attacker": row.get("attacker", ""), **points, **errors}
                more["likewise"] = audit.get("oracle") != GUESS
                value = offset + sign * row["value"]
                rows.append(Known(entry["attack"], entry["amount"], value, row["n"], **more))
    return rows


def _plain(
    audit: Mapping[str, Any], model: str, domain: str, part: str, metric: str
) -> list[Known]:
    """Return what a model knows without attack: one, or none where it was not measured."""
    return [row for row in known(audit, model, domain, part, metric) if row.attack == "plain"]


def _is_below(row: Known, limits: Mapping[str, float]) -> bool:
    """Tell whether less is known than can be guessed; a guess is measured less surely."""
    sure = 0.0 if row.likewise else limits["errors"] * (row.beyond_error or 0.0)
    return (row.beyond or 0.0) < -limits["left"] - sure


def _is_vague(row: Known, limits: Mapping[str, float]) -> bool:
    """Tell whether a guess is measured on so few rows that being near it shows nothing.

    Its interval is then wider than twice what may be left, or one row has none.
    """
    if row.likewise or row.beyond is None:
        return False
    return row.beyond_error is None or limits["errors"] * row.beyond_error > 2 * limits["left"]


def _decides(row: Known, as_before: float) -> bool:
    """Tell whether an attack decides: some do so only beside an oracle attacked likewise.

    Relearning teaches, and a base without its adapter guesses, unless it knows as much as before.
    """
    guesses = row.attack == "adapter" and row.value < as_before
    return row.compared or not (row.relearnt or guesses)


def strongest(rows: Iterable[Known], size: Callable[[Known], Any]) -> list[Known]:
    """Return the row of the largest ``size`` of each attack, in order of first appearance."""
    best: dict[str, Known] = {}
    for row in rows:
        if row.attack not in best or size(row) > size(best[row.attack]):
            best[row.attack] = row
    return list(best.values())


def metrics(audit: Mapping[str, Any]) -> list[str]:
    """Return the measured metrics of what is known, token accuracy first."""
    measured = {row["metric"] for entry in audit["measured"] for row in entry["rows"]}
    return [metric for metric in WORDS if metric in measured]


def audit_domains(audit: Mapping[str, Any], side: str = "unlearn") -> list[str]:
    """Return the domains in the order in which they were measured."""
    rows = (row for entry in audit["measured"] for row in entry["rows"])
    return list(dict.fromkeys(row["domain"] for row in rows if row["side"] == side))
