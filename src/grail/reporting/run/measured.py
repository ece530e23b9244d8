"""The tables of what was measured on both models; memorization and membership are made here."""

from __future__ import annotations

from grail.reporting.tables import (
    MISSING,
    Table,
    arrow,
    by_part,
    count_of,
    domains,
    pair,
    percent,
    success_table,
    text_table,
)
from grail.results import Results

AREAS = ("AUC-loss", "AUC-zlib", "AUC-min-k", "AUC-min-k++")
MEMORIZATION_NOTE = (
    "Cells: vanilla → unlearned, in percent. "
    "ES (extraction strength) = share of the completion that greedy decoding finishes by itself, "
    "once given what stands before. "
    "Prob = geometric mean of the probabilities of the completion's tokens. "
    "Both should be low on unlearn rows and high on retain rows. (Exact memorization is the token "
    "accuracy that US and RS are made of.) "
    "Repetition = share of four-word sequences in greedy generations that were there before; high "
    "means broken text."
)
MEMBERSHIP_NOTE = (
    "Cells: vanilla → unlearned, in percent: the probability that a held-out row scores higher "
    "than an unlearn train row, by the NLL, the NLL per compressed byte (zlib), Min-K% and "
    "Min-K%++. 50 = the unlearn rows cannot be told from rows never seen; near 100 = they are "
    "still known; near 0 = they stand out as unlearned. ± = standard error of the AUC-loss after "
    "unlearning. n = unlearn and held-out rows together."
)


def memorization_table(results: Results) -> Table:
    """Return ES, Prob and Repetition per domain, side and part, before and after."""
    metrics = {"ES": percent, "Prob": percent, "Repetition": percent}
    return by_part(results, "Memorization", metrics, MEMORIZATION_NOTE)


def membership_table(results: Results) -> Table:
    """Return the AUCs per domain, before and after; the note says which domain has none, and why.

    Without any AUC the table has no rows.
    """
    rows, without = [], []
    for domain in domains(results):
        pairs = [pair(results, domain, "unlearn", "train", metric) for metric in AREAS]
        if not any(value is not None for both in pairs for value in both):
            without.append(domain)
            continue
        error = results.value("unlearned", domain, "unlearn", "train", f"{AREAS[0]}-error")
        shown = MISSING if error is None else percent(error)
        count = count_of(results, (domain, "unlearn", "train"), AREAS)
        rows.append((domain, *(arrow(*both, percent) for both in pairs), shown, count))
    note = [MEMBERSHIP_NOTE] if rows else []
    if without:
        note.append(
            f"Not measured for {', '.join(without)}: no unlearn rows are known to be new to the "
            "vanilla model. Give some as domains.NAME.unlearn.heldout, or have it trained here "
            "without the val rows (vanilla.include_val: false)."
        )
    columns = ("Domain", *(metric.removeprefix("AUC-") for metric in AREAS), "±", "n")
    return Table("Membership (AUC)", columns, tuple(rows), " ".join(note))


def measured(results: Results) -> dict[str, Table]:
    """Return the tables of what was measured, by the names that they have in the report."""
    return {
        "success": success_table(results),
        "text": text_table(results),
        "memorization": memorization_table(results),
        "membership": membership_table(results),
    }
