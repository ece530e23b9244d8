"""Tables show exactly the numbers of the rows."""

from __future__ import annotations

import math

import pytest

from grail.reporting.tables import (
    ALL_DOMAINS,
    MISSING,
    Table,
    markdown,
    overlap_table,
    perplexity,
    success_table,
    text_table,
)
from grail.results import Result, Results, make_results


def success_rows(domain: str, part: str, us: float, rs: float, model: str = "unlearned"):
    return [
        Result(model, domain, "unlearn", part, "US", us, 24),
        Result(model, domain, "retain", part, "RS", rs, 20),
    ]


def results_of(*names: str, parts: tuple[str, ...] = ("train", "val")) -> Results:
    rows = []
    for i, name in enumerate(names):
        for part in parts:
            rows += success_rows(name, part, 2.5 + i, 98.25 - i, "vanilla")
            rows += success_rows(name, part, 90.0 - 10 * i, 60.0 + 10 * i)
    return make_results(rows, {}, "")


def localization(names: list[str], values: list[list[float]]) -> dict:
    return {
        "localizer": "grail",
        "model": {
            "entries": 12000,
            "op_ur": 1000,
            "op_rr": 300,
            "frozen": 1200,
            "frozen_fraction": 0.1,
        },
        "jaccard": {"names": names, "k": 0.1, "values": values},
    }


def test_success_table_shows_the_rows():
    table = success_table(results_of("privacy"))
    assert table.columns == ("Domain", "Part", "US", "RS", "HS", "Avg", "n")
    # 2 * 90 * 60 / 150 = 72;  2 * 2.5 * 98.25 / 100.75 = 4.876
    expected = ("privacy", "train", "2.5 → 90.0", "98.2 → 60.0", "4.9 → 72.0", "", "24/20")
    assert table.rows[0] == expected


@pytest.mark.parametrize("names", [("a",), ("c", "a", "b")])
def test_success_table_has_every_domain_in_order_and_one_average_per_part(names):
    table = success_table(results_of(*names))
    expected = [(name, part) for name in names for part in ("train", "val")]
    expected += [(ALL_DOMAINS, "train"), (ALL_DOMAINS, "val")]
    assert [row[:2] for row in table.rows] == expected


def test_averages_are_those_of_the_summary():
    results = results_of("a", "b", "c")
    row = success_table(results).rows[-1]
    summary = results.summary["val"]
    for cell, metric in zip(row[4:6], ("HS", "Avg"), strict=True):
        before, after = summary["vanilla"][metric], summary["unlearned"][metric]
        assert cell == f"{before:.1f} → {after:.1f}"
    assert row[2:4] == ("", "")


def test_success_table_without_val_and_with_one_side():
    rows = [Result("unlearned", "a", "unlearn", "train", "US", 80.0, 3)]
    table = success_table(Results(tuple(rows), {}, {}))
    assert table.rows[0] == (
        "a",
        "train",
        f"{MISSING} → 80.0",
        MISSING,
        MISSING,
        "",
        f"3/{MISSING}",
    )
    assert {row[1] for row in table.rows} == {"train"}


def test_a_domain_without_val_gets_no_val_row():
    rows = success_rows("a", "train", 90.0, 90.0) + success_rows("b", "train", 90.0, 90.0)
    rows += success_rows("b", "val", 90.0, 90.0)
    places = [row[:2] for row in success_table(make_results(rows, {}, "")).rows]
    assert ("b", "val") in places
    assert ("a", "val") not in places


def test_text_table_shows_what_was_measured_and_general_rows_last():
    rows = [
        Result("vanilla", "general", "general", "train", "NLL", 2.9, 40),
        Result("unlearned", "general", "general", "train", "NLL", 3.125, 40),
        Result("vanilla", "b", "retain", "train", "ROUGE-L", 97.0, 5),
        Result("vanilla", "b", "unlearn", "train", "PPL", 1.25, 6),
        Result("unlearned", "b", "unlearn", "train", "PPL", math.exp(50), 6),
        Result("unlearned", "b", "unlearn", "train", "US", 99.0, 6),
    ]
    assert text_table(Results(tuple(rows), {}, {})).rows == (
        ("b", "unlearn", "train", MISSING, "1.25 → >1e9", MISSING, "6"),
        ("b", "retain", "train", MISSING, MISSING, f"97.0 → {MISSING}", "5"),
        ("general", "general", "train", "2.90 → 3.12", MISSING, MISSING, "40"),
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "1.00"),
        (999.994, "999.99"),
        (1234.5, "1234"),
        (123456.0, "1.2e+05"),
        (1e9, "1.0e+09"),
        (1.1e9, ">1e9"),
        (math.inf, ">1e9"),
    ],
)
def test_perplexity(value, shown):
    assert perplexity(value) == shown


def test_overlap_table_is_the_matrix():
    table = overlap_table(localization(["a.unlearn", "a.retain"], [[1.0, 0.254], [0.254, 1.0]]))
    assert table.columns == ("", "a.unlearn", "a.retain")
    assert table.rows == (("a.unlearn", "1.00", "0.25"), ("a.retain", "0.25", "1.00"))
    assert "10%" in table.title
    assert "1,200 of 12,000 entries (10.0%)" in table.note


@pytest.mark.parametrize("given", [{}, localization([], []), {"jaccard": {}, "model": {}}])
def test_overlap_table_without_sets_has_no_rows(given):
    assert overlap_table(given).rows == ()


def test_overlap_of_a_localizer_without_jaccard_still_says_what_was_frozen():
    assert overlap_table(localization([], [])).note.startswith("Frozen: 1,200")


def test_markdown_escapes_names():
    text = markdown(Table("T", ("x", "y"), (("<b>&|", "a\\|\nb"),), "n <i>"))
    assert text.splitlines() == [
        "## T",
        "",
        "| x | y |",
        "| --- | --- |",
        "| &lt;b>&amp;\\| | a\\\\\\| b |",
        "",
        "n &lt;i>",
    ]


def test_markdown_without_rows_is_the_note():
    assert markdown(Table("T", ("x",), (), "none")).splitlines() == ["## T", "", "none"]
