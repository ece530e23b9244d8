"""What the models say: broken text, and answers sampled or with a given beginning.

Reads the content of ``audit.json`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grail.reporting.audit.knowledge import audit_domains
from grail.reporting.tables import MISSING, Table, listed, percent, plus_minus

_MODELS = ("vanilla", "unlearned", "oracle")
_NOTE = (
    "ROUGE-L (F1, percent) between generated and true answers of unlearn train rows. Best of k: "
    "the best of k answers sampled at temperature 1, in expectation. Given: a share of the true "
    "answer is part of the prompt, and the rest is compared with the rest. A model that never saw "
    "the rows shares words with them, too, and more so in the best of many answers: compare with "
    "the oracle. Repetition: percent of a greedy answer's 4-grams of characters that it has "
    "already had; of broken text it is high."
)


def broken_text(audit: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the domains on whose unlearn questions the unlearned model repeats itself, and others.

    More than ``repetition`` times what the vanilla model does on general text is broken.
    """
    said = {
        (entry["model"], row["side"], row["domain"]): row
        for entry in audit["measured"]
        for row in (entry["rows"] if entry["attack"] == "speak" else ())
        if row["metric"] == "Repetition"
    }
    general = [row for (m, side, _), row in said.items() if (m, side) == ("vanilla", "general")]
    broken, sound = [], []
    for (model, side, domain), row in said.items():
        if general and (model, side) == ("unlearned", "unlearn"):
            usual = general[0]["value"]
            text = (
                f"{domain}, {plus_minus(row['value'], row['error'])} % repetition on unlearn "
                f"questions (vanilla on general text {percent(usual)}; n {row['n']})"
            )
            most = audit["settings"]["thresholds"]["repetition"] * usual
            (broken if row["value"] > most else sound).append(text)
    return broken, sound


def _answers(audit: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Mapping[str, Any]]]]:
    """Return (domain, kind of answer, model -> row of ``audit.json``), in order of measurement."""
    kinds: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in audit["measured"]:
        for row in entry["rows"] if entry["attack"] in ("speak", "sample", "extract") else ():
            if row["side"] == "unlearn" and row["metric"] in ("ROUGE-L", "Repetition"):
                kind = _kind(entry["attack"], entry["amount"], row["metric"])
                kinds.setdefault((row["domain"], kind), {})[entry["model"]] = row
    order = audit_domains(audit)
    found = [(*kind, rows) for kind, rows in kinds.items() if "unlearned" in rows]
    return sorted(found, key=lambda one: order.index(one[0]))


def _kind(attack: str, amount: str, metric: str) -> str:
    if metric == "Repetition":
        return f"{amount}, repetition"
    if attack == "extract":
        return f"given {100 * float(amount):g} %"
    return amount if amount == "greedy" else f"best of {amount}"


def generated_warning(audit: Mapping[str, Any]) -> str:
    """Say where the unlearned model surely writes more of the true answers than the oracle.

    By over ``back`` points and over ``errors`` standard errors; "" where it does not.
    """
    limits, more = audit["settings"]["thresholds"], []
    for domain, kind, rows in _answers(audit):
        beyond, error = (rows["unlearned"].get(name) or 0.0 for name in ("beyond", "beyond_error"))
        counts = not kind.startswith("greedy") and kind != "best of 1"
        if counts and beyond > max(limits["back"], limits["errors"] * error):
            points = plus_minus(beyond, error, "+")
            more.append(f"{domain}, {kind} ({points} points; n {rows['unlearned']['n']})")
    return listed("Generates more of the true answers than the oracle", more, warning=True)


def generated_tables(audit: Mapping[str, Any]) -> list[Table]:
    """Return the table of generated answers; none where nothing was generated."""
    lines = []
    for domain, kind, rows in _answers(audit):
        cells = [
            plus_minus(row["value"], row["error"]) if (row := rows.get(model)) else MISSING
            for model in _MODELS
        ]
        row = rows["unlearned"]
        above = plus_minus(row.get("beyond"), row.get("beyond_error"), "+")
        lines.append((domain, kind, *cells, above, str(row["n"])))
    columns = ("Domain", "Answer", *(name.capitalize() for name in _MODELS), "Above oracle", "n")
    return [Table("Generated answers", columns, tuple(lines), _NOTE)] if lines else []
