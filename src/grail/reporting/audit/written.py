"""What models write when asked many times, or when the answer is begun for them; in words, a table.

Reads the content of ``audit.json`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from grail.reporting.audit.outcome import domains
from grail.reporting.run.verdict import WARNING
from grail.reporting.tables import MISSING, Table, percent, plus_minus

MODELS = ("vanilla", "unlearned", "oracle")
NOTE = (
    "ROUGE-L (F1, percent) of what is written with the true answer of unlearn train rows. Best of "
    "k: the best of k answers sampled at temperature 1, in expectation. Told: a share of the true "
    "answer is given away, and the rest compared with the rest. A model that never saw the rows "
    "shares words with them, too, and more so in the best of many answers: read the differences."
)


@dataclass(frozen=True)
class Line:
    """One way of asking, in one domain: the rows of ``audit.json`` by model."""

    domain: str
    attack: str
    amount: str
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def words(self) -> str:
        """How the model was asked."""
        if self.attack == "extract":
            return f"told {100 * float(self.amount):g} %"
        return self.amount if self.amount == "greedy" else f"best of {self.amount}"


def lines(found: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what was written, by domain and way of asking, in the order of measurement."""
    for domain in domains(found):
        groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
        for entry in found["measured"]:
            for row in entry["rows"] if entry["attack"] in ("sample", "extract") else ():
                if (row["domain"], row["metric"]) == (domain, "ROUGE-L"):
                    key = (entry["attack"], entry["amount"])
                    groups.setdefault(key, {})[entry["model"]] = row
        for key, rows in groups.items():
            if "unlearned" in rows:
                yield Line(domain, *key, rows)


def written_sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what the unlearned model writes; a warning where it surely writes more than the oracle.

    More: by over ``back`` points and over ``errors`` standard errors (``audit.thresholds``).
    """
    limits = found["settings"]["thresholds"]
    told = [line for line in lines(found) if line.amount not in ("greedy", "1")]
    beyond = []
    for line in told:
        row = line.rows["unlearned"]
        more, error = row.get("beyond"), row.get("beyond_error") or 0.0
        if more is not None and more > max(limits["back"], limits["errors"] * error):
            value = f"{plus_minus(more, row.get('beyond_error'), '+')} points; n {row['n']}"
            beyond.append(f"{line.domain}, {line.words} ({value})")
    texts = [f"{line.domain}, {line.words}: {_compared(line)}" for line in told]
    return [
        *([f"{WARNING}Writes more of the true answers than the oracle: {'; '.join(beyond)}."]
        if beyond else []),
        *([f"What it writes shares with the true answer (ROUGE-L): {'; '.join(texts)}."]
        if texts else []),
    ]  # fmt: skip


def _compared(line: Line) -> str:
    row = line.rows["unlearned"]
    others = [
        f"{name} {percent(line.rows[name]['value'])}"
        for name in ("vanilla", "oracle")
        if name in line.rows
    ]
    return f"{plus_minus(row['value'], row['error'])} % ({', '.join(others)}; n {row['n']})"


def written_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return the table of what models write; none where they were not asked to."""
    rows = []
    for line in lines(found):
        cells = [
            plus_minus(own["value"], own["error"]) if (own := line.rows.get(name)) else MISSING
            for name in MODELS
        ]
        row = line.rows["unlearned"]
        above = plus_minus(row["beyond"], row["beyond_error"], "+") if "beyond" in row else MISSING
        rows.append((line.domain, line.words, *cells, above, str(row["n"])))
    columns = ("Domain", "Answer", *(name.capitalize() for name in MODELS), "Above oracle", "n")
    return [Table("What the models write", columns, tuple(rows), NOTE)] if rows else []
