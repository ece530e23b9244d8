"""An audit as tables, and as a section of a report; reads ``audit.json`` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.reporting.audit.inside import inside_tables
from grail.reporting.audit.outcome import DESCRIBING, WORDS, Known, domains, known, metrics
from grail.reporting.audit.verdict import named
from grail.reporting.audit.written import written_tables
from grail.reporting.tables import MISSING, Table, escaped, markdown, nats, percent, plus_minus

ATTACK_NOTE = (
    "Percent of what the unlearn train rows ask for that is known ({words}), and its change in "
    "points against the model without the attack ± one standard error. Above oracle: against a "
    "model that never saw the rows, under the same attack where it was attacked so. Area: the mean "
    "height of the curve of relearning over its steps. Interpolation goes a share of the way back "
    "to the vanilla model and is no attack."
)
GENERAL = (["general", "train", "NLL"], ["general", "val", "NLL"])
HARM_NOTE = (
    "The same models on what must be kept: RS on train rows in percent, NLL of general text in "
    "nats/token. An attack that ruins the model proves nothing by bringing nothing back."
)


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``audit.json``; None without one, or if it is of other weights."""
    try:
        found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        stamp = json.loads((folder / "unlearned" / "stage.json").read_text(encoding="utf-8"))
        whole = {"measured", "settings", "sentences"} <= found.keys()
        return found if whole and found["weights"]["unlearned"] == stamp["weights"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def audit_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return the tables of an audit."""
    tables = [_attacks(found, metric) for metric in metrics(found)]
    return [*tables, *written_tables(found), _harm(found), *inside_tables(found)]


def audit_section(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return {"sentences", "tables"} for a report; both empty where no audit was made."""
    if found is None:
        return {"sentences": [], "tables": []}
    return {"sentences": found["sentences"], "tables": audit_tables(found)}


def audit_markdown(section: Mapping[str, Any]) -> str:
    """Return a section as Markdown: the sentences, then the tables; nothing without sentences."""
    if not section["sentences"]:
        return ""
    sentences = "".join(f"- {escaped(sentence)}\n" for sentence in section["sentences"])
    return "\n".join([f"## Audit\n\n{sentences}", *map(markdown, section["tables"])])


def strongest_table(found: Mapping[str, Any]) -> Table:
    """Return each attack at the strength at which most is known, in token accuracy, per domain."""
    rows = []
    for domain in domains(found):
        best: dict[str, Known] = {}
        for one in known(found, "unlearned", domain, "train", "US"):
            if one.amount not in ("0", "area"):
                old = best.get(one.attack)
                best[one.attack] = one if old is None or one.value > old.value else old
        for one in best.values():
            name = "as it is" if one.attack == "plain" else named(one)
            name += " (no attack)" * (one.attack in DESCRIBING)
            change = "" if one.attack == "plain" else plus_minus(one.change, one.change_error, "+")
            rows.append((domain, name, plus_minus(one.value, one.error), change, str(one.n)))
    columns = ("Domain", "Unlearned model", "Known %", "Change", "n")
    return Table("What each attack brings back at most", columns, tuple(rows))


def _attacks(found: Mapping[str, Any], metric: str) -> Table:
    """Return what is known of the unlearn train rows, one line per model and attack."""
    rows = []
    for domain in domains(found):
        for model in found["weights"]:
            for one in known(found, model, domain, "train", metric):
                rows.append(
                    (
                        domain,
                        model,
                        MISSING if one.attack == "plain" else named(one),
                        plus_minus(one.value, one.error),
                        MISSING
                        if one.change is None
                        else plus_minus(one.change, one.change_error, "+"),
                        MISSING
                        if one.beyond is None
                        else plus_minus(one.beyond, one.beyond_error, "+"),
                        str(one.n),
                    )
                )
    columns = ("Domain", "Model", "Attack", "Known", "Change", "Above oracle", "n")
    note = ATTACK_NOTE.format(words=WORDS[metric])
    return Table(f"Known under attack ({WORDS[metric]})", columns, tuple(rows), note)


def _harm(found: Mapping[str, Any]) -> Table:
    """Return what every attacked model still has of what must be kept."""
    names = domains(found, "retain")
    rows = []
    for entry in found["measured"]:
        values = {
            (r["domain"], r["side"], r["part"], r["metric"]): r["value"] for r in entry["rows"]
        }
        kept = [values.get((name, "retain", "train", "RS")) for name in names]
        general = [v for (_, *about), v in values.items() if about in GENERAL]
        if all(value is None for value in kept) and not general:
            continue
        label = MISSING if entry["attack"] == "plain" else f"{entry['attack']} {entry['amount']}"
        cells = (MISSING if value is None else percent(value) for value in kept)
        rows.append((entry["model"], label, *cells, nats(general[-1]) if general else MISSING))
    columns = ("Model", "Attack", *(f"RS {name}" for name in names), "NLL general")
    return Table("What the attacks leave of the rest", columns, tuple(rows), HARM_NOTE)
