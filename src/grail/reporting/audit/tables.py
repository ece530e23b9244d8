"""An audit as tables, and as a section of a report; reads ``audit.json`` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.reporting.audit.generated import generated_tables
from grail.reporting.audit.internals import internals_tables
from grail.reporting.audit.knowledge import (
    DESCRIBING,
    WORDS,
    audit_domains,
    known,
    metrics,
    strongest,
)
from grail.reporting.tables import MISSING, Table, escaped, markdown, nats, percent, plus_minus

_ATTACK_NOTE = (
    "Known: percent of the answers to unlearn train rows ({words}). Change: points against the "
    "model without the attack, ± one standard error. Above oracle: against a model that never saw "
    "the rows, under the same attack where it was measured. Area: the mean height of the "
    "relearning curve over its steps. Interpolation goes a share of the way back to the vanilla "
    "model and is no attack."
)
_HARM_NOTE = (
    "The same models on what must be kept: RS on train rows in percent, NLL of general text in "
    "nats/token. If an attack ruins the model, it proves nothing that it brings nothing back."
)


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``audit.json``; None without one, or if it is of other weights."""
    try:
        audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        stamp = json.loads((folder / "unlearned" / "stage.json").read_text(encoding="utf-8"))
        complete = {"measured", "settings", "sentences"} <= audit.keys()
        return audit if complete and audit["weights"]["unlearned"] == stamp["weights"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def audit_section(audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return {"sentences", "tables"} for a report; both empty where no audit was made."""
    if audit is None:
        return {"sentences": [], "tables": []}
    tables = [_attacks(audit, metric) for metric in metrics(audit)]
    tables += [*generated_tables(audit), _harm(audit), *internals_tables(audit)]
    return {"sentences": audit["sentences"], "tables": tables}


def audit_markdown(section: Mapping[str, Any]) -> str:
    """Return a section as Markdown: the sentences, then the tables; "" without sentences."""
    if not section["sentences"]:
        return ""
    sentences = "".join(f"- {escaped(sentence)}\n" for sentence in section["sentences"])
    return "\n".join([f"## Audit\n\n{sentences}", *map(markdown, section["tables"])])


def strongest_table(audit: Mapping[str, Any]) -> Table:
    """Return each attack at the strength at which most is known, in token accuracy, per domain."""
    rows = []
    for domain in audit_domains(audit):
        points = known(audit, "unlearned", domain, "train", "US")
        points = [row for row in points if row.amount not in ("0", "area")]
        for row in strongest(points, size=lambda row: row.value):
            plain = row.attack == "plain"
            name = "as it is" if plain else row.name + " (no attack)" * (row.attack in DESCRIBING)
            change = "" if plain else plus_minus(row.change, row.change_error, "+")
            rows.append((domain, name, plus_minus(row.value, row.error), change, str(row.n)))
    columns = ("Domain", "Unlearned model", "Known %", "Change", "n")
    return Table("What each attack brings back at most", columns, tuple(rows))


def _attacks(audit: Mapping[str, Any], metric: str) -> Table:
    """Return what is known of the unlearn train rows, one line per model and attack."""
    rows = [
        (
            domain,
            model,
            MISSING if row.attack == "plain" else row.name,
            plus_minus(row.value, row.error),
            plus_minus(row.change, row.change_error, "+"),
            plus_minus(row.beyond, row.beyond_error, "+"),
            str(row.n),
        )
        for domain in audit_domains(audit)
        for model in audit["weights"]
        for row in known(audit, model, domain, "train", metric)
    ]
    columns = ("Domain", "Model", "Attack", "Known", "Change", "Above oracle", "n")
    title = f"Known under attack ({WORDS[metric]})"
    return Table(title, columns, tuple(rows), _ATTACK_NOTE.format(words=WORDS[metric]))


def _harm(audit: Mapping[str, Any]) -> Table:
    """Return the retain rows and general text of every attacked model."""
    domains, rows = audit_domains(audit, "retain"), []
    for entry in audit["measured"]:
        train = [r for r in entry["rows"] if (r["part"], r["metric"]) == ("train", "RS")]
        retain = {row["domain"]: row["value"] for row in train}
        general = [r for r in entry["rows"] if (r["side"], r["metric"]) == ("general", "NLL")]
        if retain or general:
            attack = f"{entry['attack']} {entry['amount']}"
            label = MISSING if entry["attack"] == "plain" else attack
            cells = [percent(retain[d]) if d in retain else MISSING for d in domains]
            nll = nats(general[-1]["value"]) if general else MISSING
            rows.append((entry["model"], label, *cells, nll))
    columns = ("Model", "Attack", *(f"RS {name}" for name in domains), "NLL general")
    return Table("What the attacks leave of the rest", columns, tuple(rows), _HARM_NOTE)
