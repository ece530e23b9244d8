"""An audit as tables and as a page of Markdown; reads the content of ``audit.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grail.reporting.audit import named
from grail.reporting.outcome import WORDS, domains, known, metrics
from grail.reporting.tables import (
    MISSING,
    Table,
    escaped,
    markdown,
    nats,
    percent,
    plus_minus,
)

ATTACK_NOTE = (
    "Percent of what the unlearn train rows ask for that is known (answer tokens right), and its "
    "change in points against the model without the attack ± one standard error. Above oracle: "
    "against a model that never saw the rows, under the same attack where it was attacked so. "
    "Area: the mean height of the curve of relearning over its steps. Interpolation goes a share "
    "of the way back to the vanilla model and is no attack."
)
GENERAL = (["general", "train", "NLL"], ["general", "val", "NLL"])
HARM_NOTE = (
    "The same models on what must be kept: RS on train rows in percent, NLL of general text in "
    "nats/token. An attack that ruins the model proves nothing by bringing nothing back."
)


def audit_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return the tables of an audit."""
    tables = [_attacks(found, metric) for metric in metrics(found)]
    return [*tables, _harm(found)]


def audit_page(found: Mapping[str, Any]) -> str:
    """Return the audit as Markdown: the sentences, then the tables."""
    sentences = "".join(f"- {escaped(sentence)}\n" for sentence in found["sentences"])
    tables = "\n".join(markdown(table) for table in audit_tables(found))
    return f"# grail audit\n\n{sentences}\n{tables}"


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
    return Table(f"Known under attack ({WORDS[metric]})", columns, tuple(rows), ATTACK_NOTE)


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
