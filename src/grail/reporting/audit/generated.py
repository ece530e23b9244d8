"""What the unlearned model says: broken text, and more of the true answers than the oracle says.

Reads the content of ``audit.json`` alone.
"""

from collections.abc import Mapping
from typing import Any

from grail.reporting.audit.knowledge import ROUGE, Known, audit_domains, known
from grail.reporting.tables import listed, percent, plus_minus


def broken_text(audit: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the domains on whose unlearn questions the unlearned model repeats itself, and others.

    More than ``repetition`` times what the vanilla model does on general text is broken, if it is
    so by ``errors`` standard errors: fluent answers are short and hardly repeat anything.
    """
    said = {
        (entry["model"], row["side"], row["domain"]): row
        for entry in audit["measured"]
        for row in (entry["rows"] if entry["attack"] == "speak" else ())
        if row["metric"] == "Repetition"
    }
    general = [row for (m, side, _), row in said.items() if (m, side) == ("vanilla", "general")]
    limits, broken, sound = audit["settings"]["thresholds"], [], []
    for (model, side, domain), row in said.items():
        if general and (model, side) == ("unlearned", "unlearn"):
            usual = general[0]["value"]
            text = (
                f"{domain}, {plus_minus(row['value'], row['error'])} % repetition on unlearn "
                f"questions (vanilla on general text {percent(usual)}; n {row['n']})"
            )
            most = limits["repetition"] * usual + limits["errors"] * (row["error"] or 0.0)
            (broken if row["value"] > most else sound).append(text)
    return broken, sound


def generated(audit: Mapping[str, Any], domain: str) -> list[Known]:
    """Return how much of the true answers sampled and begun answers hold, of one domain."""
    rows = known(audit, "unlearned", domain, "train", ROUGE)
    one = ("sample", "1")  # it is the usual answer, no attack
    kinds = ("sample", "extract")
    return [r for r in rows if r.attack in kinds and (r.attack, r.amount) != one]


def revealing(audit: Mapping[str, Any], row: Known) -> bool:
    """Tell whether generated answers surely hold more of the truth than the oracle's.

    By over ``back`` points and over ``errors`` standard errors; False without an oracle.
    """
    limits = audit["settings"]["thresholds"]
    least = max(limits["back"], limits["errors"] * (row.beyond_error or 0.0))
    return row.beyond is not None and row.beyond > least


def generated_warning(audit: Mapping[str, Any]) -> str:
    """Say which generated answers are ``revealing``; "" where none are."""
    more = [
        f"{domain}, {row.name} ({plus_minus(row.beyond, row.beyond_error, '+')} points; n {row.n})"
        for domain in audit_domains(audit)
        for row in generated(audit, domain)
        if revealing(audit, row)
    ]
    return listed("Generates more of the true answers than the oracle", more, warning=True)
