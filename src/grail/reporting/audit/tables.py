"""An audit as tables, and as a section of a report; reads ``audit.json`` alone."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from grail.files import read_json
from grail.reporting.audit.knowledge import (
    AUDIT_FORMAT,
    DESCRIBING,
    ROUGE,
    WORDS,
    audit_domains,
    known,
    metrics,
)
from grail.reporting.audit.lights import lights_table
from grail.reporting.audit.moved import moved_tables
from grail.reporting.tables import (
    MISSING,
    WARNING,
    Table,
    escaped,
    markdown,
    nats,
    percent,
    plus_minus,
)
from grail.results import GUESS

_ABOVE = {
    False: "oracle: points above a model that never saw the rows, under the same attack",
    True: "guess: points above what a model guesses that never knew, measured without any attack "
    "and not compared with relearning",
}
_ATTACK_NOTE = (
    "Percent of the answers to unlearn train rows ({words}). Above {above}, with {errors:g} "
    "standard errors on either side; of relearning, the worst case over all attackers of each. "
    "Change: points against the unlearned model as it is (as it is: against the vanilla model), ± "
    "one standard error. Area: the mean height of the worst case over its steps. US is 100 minus "
    "the answer tokens right."
)
_CURVE_NOTE = (
    "Percent of the answer tokens right after so many steps, unlearned / oracle, by each attacker "
    "(learning rate; what is trained and the optimizer, where they are not the usual ones)."
)
_ROUGE_NOTE = (
    "ROUGE-L (F1, percent) between generated and true answers of unlearn train rows. Best of k: "
    "of k answers sampled at temperature 1, in expectation. Given: a share of the true answer is "
    "part of the prompt, and the rest is compared with the rest. A model that never saw the rows "
    "shares words with them, too, and more so in the best of many answers. Change: against the "
    "vanilla model."
)
_HARM_NOTE = (
    "The same models on what must be kept: RS on train rows in percent, NLL of general text in "
    "nats/token. If an attack ruins the model, it proves nothing that it brings nothing back."
)


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``audit.json``; None without one, or if it is of other weights.

    Raises:
        ValueError: if it, or the stamp of the unlearned model, is not as it was written.
    """
    try:
        audit = read_json(folder / "audit.json")
        stamp = read_json(folder / "unlearned" / "stage.json")
        complete = {"measured", "settings", "sentences"} <= audit.keys()
        return audit if complete and audit["weights"]["unlearned"] == stamp["weights"] else None
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def audit_section(audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return {"lights", "sentences", "tables"} for a report: a table of lights, all else below it.

    All empty where no audit was made. An audit of an older format gets one sentence, that it has to
    be made again.
    """
    empty: dict[str, Any] = {"lights": None, "sentences": [], "tables": []}
    if audit is None:
        return empty
    if audit.get("format") != AUDIT_FORMAT:
        again = "An older grail made this audit. Make it again: grail audit RUNDIR."
        return empty | {"sentences": [f"{WARNING}{again}"]}
    tables = [*map(partial(_attacks, audit), metrics(audit)), *_curves(audit)]
    if (generated := _attacks(audit, ROUGE)).rows:
        tables.append(replace(generated, title="Generated answers", note=_ROUGE_NOTE))
    tables += [_harm(audit), *moved_tables(audit)]
    return {"lights": lights_table(audit), "sentences": audit["sentences"], "tables": tables}


def audit_markdown(section: Mapping[str, Any]) -> str:
    """Return a section as Markdown: lights, sentences, tables; "" where no audit was made."""
    if not section["sentences"]:
        return ""
    lights = [markdown(section["lights"])] if section["lights"] else []
    sentences = "".join(f"- {escaped(sentence)}\n" for sentence in section["sentences"])
    findings = f"## Audit in words\n\n{sentences}"
    return "\n".join([*lights, findings, *map(markdown, section["tables"])])


def _attacks(audit: Mapping[str, Any], metric: str) -> Table:
    """Return what is known of the unlearn train rows under each attack, the oracle first."""
    errors, lines = audit["settings"]["thresholds"]["errors"], []
    guessed = audit["oracle"] == GUESS
    for domain in audit_domains(audit):
        of = {m: known(audit, m, domain, "train", metric) for m in ("oracle", "vanilla")}
        others = {(m, row.attack, row.amount): row.value for m, rows in of.items() for row in rows}
        rows = known(audit, "unlearned", domain, "train", metric)
        if guessed:
            others |= {("oracle", row.attack, row.amount): row.never for row in rows}
        rows = [row for row in rows if "@" not in row.attack and row.amount != "0"]
        for row in rows:
            cells = [others.get((model, row.attack, row.amount)) for model in of]
            success = [percent(100 - row.value)] if metric == "US" else []
            lines.append(
                (
                    domain,
                    row.name + " (no attack)" * (row.attack in DESCRIBING),
                    row.above(errors) or MISSING,
                    plus_minus(row.value, row.error),
                    *(MISSING if cell is None else percent(cell) for cell in cells),
                    plus_minus(row.change, row.change_error, "+"),
                    *success,
                    str(row.n),
                )
            )
    above, other = ("Above guess", "Guess %") if guessed else ("Above oracle", "Oracle %")
    columns = ("Domain", "Attack", above, "Unlearned %", other, "Vanilla %", "Change")
    columns += ("US", "n") if metric == "US" else ("n",)
    words = WORDS.get(metric, metric)
    note = _ATTACK_NOTE.format(words=words, errors=errors, above=_ABOVE[guessed])
    return Table(f"Known under attack ({words})", columns, tuple(lines), note)


def _curves(audit: Mapping[str, Any]) -> list[Table]:
    """Return the relearning curves of every attacker; none where nothing was relearnt."""
    curves: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for domain in audit_domains(audit):
        for model in ("unlearned", "oracle"):
            for row in known(audit, model, domain, "train", "US"):
                if "@" in row.attack:
                    points = curves.setdefault((domain, row.attack), {})
                    points.setdefault(row.amount, {})[model] = percent(row.value)
    steps = list(dict.fromkeys(step for points in curves.values() for step in points))
    lines = [
        (domain, *attack.split("@"), *(" / ".join(points.get(s, {}).values()) for s in steps))
        for (domain, attack), points in curves.items()
    ]
    columns = ("Domain", "Attack", "Attacker", *steps)
    return [Table("Relearning, step by step", columns, tuple(lines), _CURVE_NOTE)] if lines else []


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
