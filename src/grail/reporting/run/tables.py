"""The tables of one run: successes, text, memorization, membership, general ability, mask."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import read_json
from grail.reporting.tables import (
    HUGE,
    MISSING,
    Table,
    arrow,
    count_of,
    domains,
    frozen_sentence,
    nats,
    pair,
    percent,
    successes,
)
from grail.results import Results

AREAS = ("AUC-loss", "AUC-zlib", "AUC-min-k", "AUC-min-k++")
"""Metrics of membership."""

_ARROW = "Cells: before → after. "
_SUCCESS_NOTE = f"{_ARROW}Percent; higher is better. n = unlearn rows / retain rows."
_TEXT_NOTE = (
    f"{_ARROW}A high NLL is wanted on unlearn rows only; a PPL above 1e9 there means "
    "destroyed text rather than forgetting."
)
_OVERLAP_NOTE = "Jaccard index between the most important entries of two sides; 1 = the same."
_MEMORIZATION_NOTE = (
    f"{_ARROW}Percent. ES and Prob should be low on unlearn rows and high on retain rows; a high "
    "repetition or a compression below 40 means broken text."
)
_MEMBERSHIP_NOTE = (
    f"{_ARROW}Percent, by the NLL, the NLL per compressed byte (zlib), Min-K% and Min-K%++. "
    "50 = the unlearn rows cannot be told from unseen rows; near 100 = still known; near 0 = they "
    "can be recognised as unlearned. ± = standard error of the AUC-loss after unlearning. "
    "n = unlearn and held-out rows together."
)
_GENERAL_NOTE = (
    "Accuracy in percent ± its standard error, by the log-likelihood of each choice. "
    "acc takes the most probable choice, acc_norm the most probable per character. "
    "The error of a difference is that of the differences item by item; a difference of less than "
    "two errors may be chance. Average = mean of the tasks' acc, each counting the same."
)
_WORDS = {
    "before → after": "the model as it was taken or taught first (vanilla), and the unlearned one",
    "unlearn, retain rows": "what must go, and what must stay",
    "train, val rows": "rows that were unlearned or retained, and rows that were only measured: "
    "they show whether the fact is gone or only its wording",
    "right answers": "token accuracy: percent of the answer's tokens that the model ranks first, "
    "given the question and the true answer up to there",
    "US, RS": "unlearning success: 100 minus the right answers on unlearn rows; retention success: "
    "the right answers on retain rows",
    "HS, Avg": "harmonic mean of US and RS of a domain, then averaged over domains; mean of all "
    "US and RS",
    "NLL, PPL": "mean negative log-likelihood of the answer's tokens in nats: how surprising the "
    "model finds the text; exp of that",
    "ROUGE-L": "0 to 100: how much of the true answer a greedy answer shares, in order",
    "ES, Prob": "extraction strength: the share of an answer that the model finishes by itself, "
    "given the rest; geometric mean probability of the answer's tokens",
    "verbatim": "percent of greedy answers that hold all words of the true one, in order",
    "repetition": "share of an answer's 4-grams of characters that it has already had",
    "compression": "size of an answer after zlib, in percent of its own; near 0 where it repeats",
    "AUC": "probability that a row never seen scores higher than an unlearn row",
    "frozen, OP-UR, OP-RR": "entries that must not move, because they matter for what must go and "
    "for what must stay (UR), or for what must stay in two domains (RR)",
    "Jaccard index": "shared entries / entries in either set",
    "oracle": "a model that never saw the unlearn rows: what can be known without them",
}


def words_table() -> Table:
    """Return the words of this field, each explained once."""
    return Table("Words", ("Word", "Meaning"), tuple(_WORDS.items()))


def measured_tables(results: Results) -> dict[str, Table]:
    """Return the tables of ``results.json``, by the names that they have in the report."""
    text = {"NLL": nats, "PPL": _perplexity, "ROUGE-L": percent}
    memorization = {n: percent for n in ("ES", "Prob", "Verbatim", "Repetition", "Compression")}  # noqa: C420
    return {
        "success": success_table(results),
        "text": _by_part(results, "Text quality", text, _TEXT_NOTE),
        "memorization": _by_part(results, "What it says", memorization, _MEMORIZATION_NOTE),
        "membership": membership_table(results),
    }


def success_table(results: Results) -> Table:
    """Return the successes before and after, one row per domain and part, then the averages."""
    columns = ("US", "RS", "HS", "Avg")
    rows = []
    for row in successes(results):
        cells = (arrow(*row.pairs[c], percent) if c in row.pairs else "" for c in columns)
        rows.append((row.domain, row.part, *cells, row.rows))
    return Table("Successes", ("Domain", "Part", *columns, "n"), tuple(rows), _SUCCESS_NOTE)


def _by_part(
    results: Results, title: str, metrics: Mapping[str, Callable[[float], str]], note: str
) -> Table:
    """Return metrics, each with its format, in one row per domain, side and part."""
    names = [*domains(results), *(row.domain for row in results.rows)]
    sides = ("unlearn", "retain", "check", "general")
    places = {(r.domain, r.side, r.part) for r in results.rows if r.metric in metrics}
    rows = []
    for place in sorted(places, key=lambda p: (names.index(p[0]), sides.index(p[1]), p[2])):
        cells = [arrow(*pair(results, *place, m), show) for m, show in metrics.items()]
        rows.append((*place, *cells, count_of(results, place, tuple(metrics))))
    columns = ("Domain", "Side", "Part", *metrics, "n")
    return Table(title, columns, tuple(rows), note if rows else "Not measured.")


def _perplexity(value: float) -> str:
    """Show a PPL; above 1e9 its digits mean nothing and only ">1e9" is shown."""
    if value > HUGE:
        return ">1e9"
    if value >= 1e5:
        return f"{value:.1e}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.2f}"


def membership_table(results: Results) -> Table:
    """Return the AUCs per domain, before and after; the note says which domain has none, and why.

    Without any AUC the table has no rows.
    """
    rows, without = [], []
    for domain in domains(results):
        place = (domain, "unlearn", "train")
        pairs = [pair(results, *place, metric) for metric in AREAS]
        if not any(value is not None for both in pairs for value in both):
            without.append(domain)
            continue
        error = results.value("unlearned", *place, f"{AREAS[0]}-error")
        cells = [arrow(*both, percent) for both in pairs]
        cells.append(MISSING if error is None else percent(error))
        rows.append((domain, *cells, count_of(results, place, AREAS)))
    notes = [_MEMBERSHIP_NOTE] if rows else []
    if without:
        notes.append(
            f"Not measured for {', '.join(without)}: no unlearn rows are known to be new to the "
            "model. Give some as domains.NAME.unlearn.heldout, or have it taught here "
            "without the val rows (teach.include_val: false)."
        )
    columns = ("Domain", *(metric.removeprefix("AUC-") for metric in AREAS), "±", "n")
    return Table("Membership (AUC)", columns, tuple(rows), " ".join(notes))


def read_general(folder: Path) -> dict[str, Any]:
    """Return the content of ``general.json``, {} without general tasks; InputError if damaged."""
    path = folder / "general.json"
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{error}.") from error


def general_table(general: Mapping[str, Any]) -> Table:
    """Return a row per task and metric, then the average; no rows for an empty ``general``."""
    columns = ("Task", "Metric", "n", "Before", "After", "Difference")
    if not general:
        return Table("General ability", columns, ())
    rows = [(r["task"], r["metric"], f"{r['n']:,}", *_accuracies(r)) for r in general["tasks"]]
    average = general["average"]
    if average["tasks"] > 1:
        label = (f"average of {average['tasks']}", average["metric"], "")
        rows.append((*label, *_accuracies(average)))
    return Table(
        "General ability", columns, tuple(rows), f"{_GENERAL_NOTE} By {general['harness']}."
    )


def _accuracies(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for name, sign in (("vanilla", ""), ("unlearned", ""), ("difference", "+")):
        value, error = row[name]["value"], row[name]["stderr"]
        cells.append(f"{value:{sign}.1f} ± {MISSING if error is None else percent(error)}")
    return cells


def overlap_table(localization: Mapping[str, Any]) -> Table:
    """Return the Jaccard matrix of the important entries; the note says what was frozen.

    A localizer without sets ("none") gives a table without rows.
    """
    jaccard: Mapping[str, Any] = localization.get("jaccard") or {}
    names: Sequence[str] = jaccard.get("names") or ()
    if not names:
        return Table("Overlap", ("",), (), frozen_sentence(localization))
    rows = tuple(
        (name, *(f"{value:.2f}" for value in values))
        for name, values in zip(names, jaccard["values"], strict=True)
    )
    title = f"Overlap of the top {100 * jaccard['k']:g}% of the entries"
    return Table(title, ("", *names), rows, f"{_OVERLAP_NOTE} {frozen_sentence(localization)}")


def layer_table(layers: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return what was frozen of each layer."""
    counts = ("entries", "op_ur", "op_rr", "frozen")
    rows = tuple(
        (name, *(f"{layer[c]:,}" for c in counts), f"{layer['frozen_fraction']:.1%}")
        for name, layer in layers.items()
    )
    columns = ("Layer", "Entries", "OP-UR", "OP-RR", "Frozen", "Fraction")
    return Table("Frozen fraction per layer", columns, rows)
