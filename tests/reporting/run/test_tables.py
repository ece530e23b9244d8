"""The tables of a run: exactly the numbers of the rows, and what is missing and why."""

from __future__ import annotations

import math

import pytest

from grail.errors import InputError
from grail.files import write_json
from grail.reporting.run.tables import (
    _perplexity,
    general_table,
    layer_table,
    measured_tables,
    membership_table,
    overlap_table,
    read_general,
    success_table,
)
from grail.reporting.tables import ALL_DOMAINS, MISSING
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
    assert measured_tables(Results(tuple(rows), {}, {}))["text"].rows == (
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
    assert _perplexity(value) == shown


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


def named(*domains):
    """Rows that say no more than that there are these domains."""
    sides = (("unlearn", "US"), ("retain", "RS"))
    return [Result("unlearned", d, side, "train", m, 90.0, 4) for d in domains for side, m in sides]


def memorization_of(results):
    return measured_tables(results)["memorization"]


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
    table = memorization_of(Results(tuple(rows), {}, {}))
    assert table.columns == (
        "Domain",
        "Side",
        "Part",
        "ES",
        "Prob",
        "Verbatim",
        "Repetition",
        "Compression",
        "n",
    )
    after = (f"{MISSING} → 0.0", MISSING, f"{MISSING} → 50.0", MISSING)
    assert table.rows == (
        ("a", "unlearn", "train", "100.0 → 12.2", *after, "6"),
        ("a", "retain", "val", f"97.0 → {MISSING}", *[MISSING] * 4, "5"),
    )
    without = memorization_of(Results(tuple(rows[-2:]), {}, {}))
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
        "Not measured for a, b: no unlearn rows are known to be new to the model. Give some "
        "as domains.NAME.unlearn.heldout, or have it taught here without the val rows "
        "(teach.include_val: false)."
    )


def test_each_table_has_the_name_it_has_in_the_report():
    found = measured_tables(make_results(named("a"), {}, ""))
    assert list(found) == ["success", "text", "memorization", "membership"]
    assert found["success"].rows


def row(task, metric="acc", n=40, stderr=7.94):
    return {
        "task": task,
        "metric": metric,
        "n": n,
        "vanilla": {"value": 42.5, "stderr": stderr},
        "unlearned": {"value": 37.5, "stderr": stderr},
        "difference": {"value": -5.0, "stderr": stderr and 3.49},
    }


def general(*rows):
    average = {key: rows[0][key] for key in ("vanilla", "unlearned", "difference")}
    return {
        "inputs": "",
        "harness": "lm-eval 1.2",
        "tasks": list(rows),
        "average": {"metric": "acc", "tasks": len({r["task"] for r in rows}), **average},
    }


def test_a_row_per_task_and_metric_then_the_average():
    table = general_table(general(row("arc"), row("arc", "acc_norm"), row("race", n=1045)))
    assert table.rows[0] == ("arc", "acc", "40", "42.5 ± 7.9", "37.5 ± 7.9", "-5.0 ± 3.5")
    assert [r[:3] for r in table.rows[1:]] == [
        ("arc", "acc_norm", "40"),
        ("race", "acc", "1,045"),
        ("average of 2", "acc", ""),
    ]
    assert table.note.endswith("By lm-eval 1.2.")


def test_one_task_is_its_own_average_and_one_item_has_no_error():
    (only,) = general_table(general(row("arc", n=1, stderr=None))).rows
    assert only[3:] == tuple(f"{value} ± {MISSING}" for value in (42.5, 37.5, -5.0))


def test_a_gain_has_a_sign():
    better = row("arc") | {"difference": {"value": 2.5, "stderr": 1.0}}
    assert general_table(general(better)).rows[0][-1] == "+2.5 ± 1.0"


def test_nothing_asked_is_no_table(tmp_path):
    assert read_general(tmp_path) == {}
    table = general_table({})
    assert (table.rows, table.note) == ((), "")


def test_the_file_is_read_and_damage_is_said(tmp_path):
    write_json(tmp_path / "general.json", general(row("arc")))
    assert read_general(tmp_path) == general(row("arc"))
    (tmp_path / "general.json").write_text("{")
    with pytest.raises(InputError, match=r"general\.json is not as grail wrote it"):
        read_general(tmp_path)


def test_every_layer_has_a_line():
    layer = {"entries": 4000, "op_ur": 300, "op_rr": 20, "frozen": 411, "frozen_fraction": 0.10275}
    assert layer_table({"layers.0": layer}).rows == (
        ("layers.0", "4,000", "300", "20", "411", "10.3%"),
    )
    assert layer_table({}).rows == ()
