"""Tables of a comparison: numbers as they are, in four formats, with what a reader must know."""

import csv
import io

from grail.reporting.comparison.tables import (
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    comparison_tables,
)
from grail.reporting.tables import MISSING

GIB = 1 << 30


def number(mean, sd=None):
    return {"mean": mean, "sd": sd}


def successes(us, rs, sd=None):
    avg, hs = (us + rs) / 2, 2 * us * rs / (us + rs)
    found = {"privacy.US": us, "privacy.RS": rs, "privacy.HS": hs, "Avg": avg, "HS": hs}
    nlls = {"unlearn NLL": number(9.126, sd and 0.5), "general NLL": number(3.0, sd and 0.0)}
    return {name: number(value, sd) for name, value in found.items()} | nlls


def method(name, us=80.0, rs=60.0, **more):
    about = {"of": name, "varied": {}, "chosen": {}, "seeds": [0, 1], "n_seeds": 2, "failed": 0}
    cost = {"minutes": number(1.234, 0.1), "peak_bytes": GIB * 3 // 2}
    parts = {"train": successes(us, rs, 1.25), "val": successes(us - 10, rs - 10, 2.0)}
    return {"method": name, **about, **cost, **parts} | more


def comparison(*methods, **more):
    found = {
        "title": "Tiny_1",
        "settings": {"domains": {"privacy": {}}, "evaluation": {"retain_target": 95.0}},
        "choose": {"part": "train", "metric": "Avg", "seed": 0},
        "reference": ["grail"],
        "figures": ["tradeoff", "heatmap", "sweep"],
        "columns": ["US", "RS"],
        "vanilla": {"train": successes(1.0, 99.0), "val": successes(2.0, 90.0)},
        "grid": [],
        "cells": [],
        "methods": list(methods),
        "differences": [],
        "best": [],
    }
    return found | more


def best(name, metric, clear=True, seeds=(0, 1)):
    about = {"method": name, "model": "unlearned", "part": "train", "seeds": list(seeds)}
    return about | {"metric": metric, "clear": clear}


def difference(metric, mean, model="unlearned", resampled="seeds and samples"):
    about = {"method": "b", "reference": "grail", "model": model, "part": "val", "metric": metric}
    about |= {"low": mean - 1, "high": mean + 2, "resampled": resampled}
    return about | {"mean": mean, "seeds": [0, 1], "by_seed": [mean - 0.5, mean + 0.5]}


def test_a_table_per_part():
    train, val = comparison_tables(comparison(method("grail"), method("b", 70.0)))
    assert (train.title, val.title) == ("Tiny_1: train rows", "Tiny_1: val rows")
    assert train.columns == (
        *("Method", "privacy US", "privacy RS", "Avg", "HS"),
        *("unlearn NLL", "general NLL", "minutes", "peak GiB"),
    )
    vanilla, first, second = train.rows
    assert vanilla[:3] == ("vanilla", "1.0", "99.0")
    assert vanilla[-2:] == (MISSING, MISSING)
    assert first == (
        *("grail", "80.0 ± 1.2", "60.0 ± 1.2", "70.0 ± 1.2", "68.6 ± 1.2"),
        *("9.13 ± 0.50", "3.00 ± 0.00", "1.2", "1.50"),
    )
    assert second[0] == "b"
    assert train.note.endswith("Seeds: 0, 1.")


def test_general_text_alone_makes_no_table():
    alone = {"general NLL": number(3.0), "own words.RS": number(98.0)}
    tables = comparison_tables(comparison(method("grail", val=alone), method("b", val=alone)))
    assert [table.title for table in tables] == ["Tiny_1: train rows"]


def test_the_columns_of_a_domain_are_those_asked_for():
    (train, *_) = comparison_tables(comparison(method("grail"), columns=["HS"]))
    assert train.columns[:4] == ("Method", "privacy HS", "Avg", "HS")
    assert train.rows[1][:3] == ("grail", "68.6 ± 1.2", "70.0 ± 1.2")


def test_a_failed_method_is_a_dash_with_a_note():
    lost = method(
        "lost", seeds=[], n_seeds=0, failed=2, minutes=None, peak_bytes=None, train={}, val={}
    )
    table = comparison_tables(comparison(method("grail"), lost))[0]
    assert table.rows[2] == ("lost", *[MISSING] * 8)
    assert "Failed cells, which no mean includes: lost (2)." in table.note
    (alone,) = comparison_tables(comparison(lost))
    assert alone.rows[1] == ("lost", *[MISSING] * 8)


def test_what_a_reader_must_know():
    other = {"evaluation.retain_target": 50, "data.max_rows": 3, "unlearning.epochs": 2}
    cells = [
        {"method": "b", "own_vanilla": True, "resumed": True, "overrides": other},
        {"method": "grail", "own_vanilla": False, "overrides": {"unlearning.epochs": 3}},
    ]
    chosen = method("b", seeds=[2, 1], chosen={"unlearning.learning_rate": 0.1})
    versions = [{"git": "a"}, {"git": "b"}]
    found = comparison(method("grail"), chosen, cells=cells) | {"made_with": versions}
    note = comparison_tables(found)[0].note
    assert "Cells were made with 2 sets of versions" in note
    one = comparison_tables(found | {"made_with": versions[:1]})[0].note
    assert "versions" not in one
    assert "Seeds differ: grail 0, 1; b 1, 2." in note
    told = (
        "Measured differently, or on other rows: b (evaluation.retain_target=50, data.max_rows=3)."
    )
    assert told in note
    assert "With a vanilla model of their own: b." in note
    assert "1 cells were interrupted" in note
    assert "Chosen by Avg of the train rows with seed 0: b unlearning.learning_rate=0.1." in note


def test_only_what_leads_clearly_is_marked():
    marks = [best("grail", "Avg"), best("grail", "HS", clear=False)]
    found = comparison(method("grail"), method("b", 70.0), best=marks)
    train, val = comparison_tables(found)
    assert train.rows[1][3:5] == ("70.0 ± 1.2*", "68.6 ± 1.2")
    assert "*" not in "".join(val.rows[1])
    one = comparison(method("grail"), method("b"), best=[best("grail", "Avg", seeds=[0])])
    assert "*" not in "".join(comparison_tables(one)[0].rows[1]), "one seed shows no lead"
    text = comparison_markdown(found)
    assert "| **70.0 ± 1.2** | 68.6 ± 1.2 |" in text
    assert r"\textbf{70.0 $\pm$ 1.2} & 68.6 $\pm$ 1.2" in comparison_latex(found)


def test_differences_have_a_table_for_each_reference():
    lines = [difference(m, 3.0) for m in ("Avg", "HS")]
    back = {"method": "grail", "reference": "b", "mean": -3.0}
    both = comparison(method("grail"), method("b"), reference=["grail", "b"])
    tables = comparison_tables(both | {"differences": [*lines, *(li | back for li in lines)]})[-2:]
    assert [table.title for table in tables] == ["Differences to grail", "Differences to b"]
    assert [[row[0] for row in table.rows] for table in tables] == [["b"], ["grail"]]


def test_differences_are_a_table_of_their_own():
    lines = [difference("Avg", 3.0), difference("HS", -2.0)]
    *_, table = comparison_tables(comparison(method("grail"), method("b"), differences=lines))
    assert table.title == "Differences to grail"
    assert table.rows == (("b", "val", "+3.0 [+2.0, +5.0]", "-2.0 [-3.0, +0.0]", "+2.5, +3.5"),)
    assert "10,000 draws of seeds and samples" in table.note
    assert "too narrow" in table.note
    lines = [line | {"resampled": "samples", "seeds": [0], "by_seed": [3.0]} for line in lines]
    *_, table = comparison_tables(comparison(method("grail"), method("b"), differences=lines))
    assert "10,000 draws of samples" in table.note
    assert "too narrow" not in table.note
    assert "says nothing of other seeds" in table.note
    assert table.rows[0][-1] == MISSING, "one seed: that is the difference"


def test_equal_retention_has_the_same_tables():
    both = [
        method(name, calibrated={"train": successes(us, 90.0), "val": successes(us, 80.0)})
        for name, us in (("grail", 50.0), ("b", 40.0))
    ]
    lines = [difference(m, 4.0, "calibrated") for m in ("Avg", "HS")]
    titles = [t.title for t in comparison_tables(comparison(*both, differences=lines))]
    assert titles == [
        "Tiny_1: train rows",
        "Tiny_1: val rows",
        "Tiny_1: train rows at equal retention",
        "Tiny_1: val rows at equal retention",
        "Differences to grail at equal retention",
    ]


def test_csv_is_unrounded():
    text = comparison_csv(comparison(method("grail"), method('with, "quotes"')))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(li["method"], li["part"]) for li in lines[:2]] == [
        ("grail", "train"),
        ("grail", "val"),
    ]
    assert lines[2]["method"] == 'with, "quotes"'
    assert (lines[0]["privacy.US mean"], lines[0]["privacy.US sd"]) == ("80.0", "1.25")
    assert (lines[0]["minutes"], lines[0]["peak_bytes"]) == ("1.234", str(GIB * 3 // 2))


def retained(high):
    """Rows of a calibrated model with a mean RS of ``high`` - 1 on train rows."""
    rows = [("calibrated", "RS", "train", high), ("calibrated", "RS", "train", high - 2)]
    rows += [("unlearned", "RS", "train", 1.0), ("calibrated", "RS", "val", 1.0)]
    return [dict(zip(("model", "metric", "part", "value"), row, strict=True)) for row in rows]


def test_who_did_not_meet_the_wished_retain_success_is_named():
    weights = {"grail": 1.0, "none": 0.4, "ascent": 0.0, "cliff": 0.2}
    cells = [
        {
            "method": m,
            "seed": 3,
            "calibrated_weight": w,
            "rows": retained(98.0 if w < 0.3 else 95.2),
        }
        for m, w in weights.items()
    ]
    parts = {"train": successes(70.0, 95.0), "val": successes(60.0, 85.0)}
    found = comparison(*(method(m, calibrated=parts) for m in weights), cells=cells)
    plain, calibrated = (
        next(t for t in comparison_tables(found) if t.title.endswith(ending))
        for ending in ("train rows", "train rows at equal retention")
    )
    assert "or more without calibration (weight 1): grail seed 3." in calibrated.note
    assert (
        "vanilla model (weight 0), so that nothing is unlearned: ascent seed 3." in calibrated.note
    )
    assert "Wished: a mean RS of 95 on train rows." in calibrated.note
    assert "from there: cliff seed 3 (97.0)." in calibrated.note
    assert "none seed 3" not in calibrated.note
    assert "weight 1" not in plain.note


def test_one_seed_has_no_spread_to_speak_of():
    one = method("grail") | {"n_seeds": 1, "seeds": [0]}
    assert "over seeds" not in comparison_tables(comparison(one))[0].note
    assert "over seeds" in comparison_tables(comparison(method("grail")))[0].note


def test_weak_evidence_is_told_under_every_table():
    about = {"model": "vanilla", "domain": "privacy", "part": "train"}
    known = [
        about | {"side": "unlearn", "metric": "US", "value": 1.0, "n": 12},
        about | {"side": "retain", "metric": "RS", "value": 99.0, "n": 12},
    ]
    told = []
    for change in ({}, {"n": 4}, {"value": 70.0}):
        vanilla = {"rows": [known[0] | change, known[1]], "train": successes(1.0, 99.0)}
        (table, *_) = comparison_tables(comparison(method("grail"), vanilla=vanilla))
        told.append(table.note.partition("The evidence is weak, because ")[2])
    assert told == [
        "",
        "some sides have only 4 rows (fewer than 10).",
        "the vanilla model did not know unlearn rows of privacy (US 70.0 train).",
    ]


def test_a_choice_at_an_edge_and_rows_that_chose_are_told():
    found = comparison(method("grail"), method("b"))
    found["methods"][0] |= {"chosen": {"unlearning.learning_rate": 4}, "edge": ["x"]}
    found["choose"] |= {"rows": "half", "seed": 3}
    table = comparison_tables(found)[0]
    assert table.rows[1][0] == f"{found['methods'][0]['method']} (edge)"
    assert "(edge): chosen at an edge of its grid" in table.note
    assert "of half of the train rows with seed 3" in table.note
    assert "Train rows: the half that did not choose." in table.note
