"""Memorization and membership as tables: the numbers of the rows, and what is missing and why."""

from __future__ import annotations

from grail.reporting.run.measured import measured, membership_table, memorization_table
from grail.reporting.tables import MISSING
from grail.results import Result, Results, make_results


def named(*domains):
    """Rows that say no more than that there are these domains."""
    sides = (("unlearn", "US"), ("retain", "RS"))
    return [Result("unlearned", d, side, "train", m, 90.0, 4) for d in domains for side, m in sides]


def test_memorization_table_shows_what_was_measured():
    rows = [
        Result("vanilla", "a", "retain", "val", "ES", 97.0, 5),
        Result("vanilla", "a", "unlearn", "train", "ES", 100.0, 6),
        Result("unlearned", "a", "unlearn", "train", "ES", 12.25, 6),
        Result("unlearned", "a", "unlearn", "train", "Prob", 0.04, 6),
        Result("unlearned", "a", "unlearn", "train", "Repetition", 50.0, 6),
        Result("unlearned", "a", "unlearn", "train", "NLL", 3.0, 6),
        Result("unlearned", "general", "general", "val", "NLL", 3.0, 7),
    ]
    table = memorization_table(Results(tuple(rows), {}, {}))
    assert table.columns == ("Domain", "Side", "Part", "ES", "Prob", "Repetition", "n")
    after = (f"{MISSING} → 0.0", f"{MISSING} → 50.0")
    assert table.rows == (
        ("a", "unlearn", "train", "100.0 → 12.2", *after, "6"),
        ("a", "retain", "val", f"97.0 → {MISSING}", MISSING, MISSING, "5"),
    )
    without = memorization_table(Results(tuple(rows[-2:]), {}, {}))
    assert (without.rows, without.note) == ((), "Not measured.")


def areas(domain, before, after):
    """Four AUCs that are one apart, and the error of the first."""
    names = ("AUC-loss", "AUC-zlib", "AUC-min-k", "AUC-min-k++")
    rows = []
    for i, name in enumerate(names):
        rows.append(Result("vanilla", domain, "unlearn", "train", name, before - i, 44))
        rows.append(Result("unlearned", domain, "unlearn", "train", name, after + i, 44))
    error = Result("unlearned", domain, "unlearn", "train", "AUC-loss-error", 6.25, 44)
    return [*rows, error]


def test_membership_table_shows_the_areas_and_says_what_is_missing():
    table = membership_table(Results((*named("a", "b"), *areas("b", 99.0, 55.0)), {}, {}))
    assert table.columns == ("Domain", "loss", "zlib", "min-k", "min-k++", "±", "n")
    cells = ("99.0 → 55.0", "98.0 → 56.0", "97.0 → 57.0", "96.0 → 58.0")
    assert table.rows == (("b", *cells, "6.2", "44"),)
    assert "50 = the unlearn rows cannot be told" in table.note
    assert "Not measured for a: no unlearn rows are known to be new" in table.note
    both = membership_table(Results((*areas("a", 99.0, 1.0), *areas("b", 99.0, 1.0)), {}, {}))
    assert [row[0] for row in both.rows] == ["a", "b"]
    assert "Not measured" not in both.note


def test_without_unseen_rows_one_sentence_says_why():
    table = membership_table(Results(tuple(named("a", "b")), {}, {}))
    assert table.rows == ()
    assert table.note == (
        "Not measured for a, b: no unlearn rows are known to be new to the vanilla model. Give "
        "some as domains.NAME.unlearn.heldout, or have it trained here without the val rows "
        "(vanilla.include_val: false)."
    )


def test_each_table_has_the_name_it_has_in_the_report():
    found = measured(make_results(named("a"), {}, ""))
    assert list(found) == ["success", "text", "memorization", "membership"]
    assert found["success"].rows
