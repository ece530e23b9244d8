"""Means, errors and paired differences, by hand."""

import math
import statistics

import pytest

from grail.evaluation.general.outcomes import Outcome, compare_outcomes, estimate


def outcomes(task, corrects, norms=None):
    norms = norms or [None] * len(corrects)
    return [
        Outcome(task, str(i), float(c), n)
        for i, (c, n) in enumerate(zip(corrects, norms, strict=True))
    ]


def test_the_error_of_a_mean():
    assert estimate([1.0, 1.0, 0.0, 1.0]) == {"value": 75.0, "stderr": pytest.approx(25.0)}
    shares = [0.2, 0.9, 0.4, 0.4, 1.0]
    found = estimate(shares)
    assert found["value"] == pytest.approx(100 * statistics.mean(shares))
    assert found["stderr"] == pytest.approx(100 * statistics.stdev(shares) / math.sqrt(5))


def test_one_item_has_no_error():
    assert estimate([1.0]) == {"value": 100.0, "stderr": None}
    one = compare_outcomes(outcomes("a", [1]), outcomes("a", [0]))
    assert one["tasks"][0]["difference"] == {"value": -100.0, "stderr": None}
    assert one["average"]["difference"] == {"value": -100.0, "stderr": None}


def test_the_difference_is_paired():
    # four items, one of which changed: differences 0, 0, 0, -1 with mean -1/4 and variance 1/4
    found = compare_outcomes(outcomes("a", [1, 0, 1, 1]), outcomes("a", [1, 0, 1, 0]))
    (row,) = found["tasks"]
    assert (row["task"], row["metric"], row["n"]) == ("a", "acc", 4)
    assert row["vanilla"]["value"] - row["unlearned"]["value"] == 25.0
    assert row["difference"] == {"value": -25.0, "stderr": pytest.approx(25.0)}
    unpaired = math.hypot(row["vanilla"]["stderr"], row["unlearned"]["stderr"])
    assert row["difference"]["stderr"] < unpaired


def test_no_change_is_a_sure_zero():
    same = outcomes("a", [1, 0, 1])
    assert compare_outcomes(same, same)["tasks"][0]["difference"] == {"value": 0.0, "stderr": 0.0}


def test_the_average_weighs_tasks_alike_and_reads_acc_only():
    before = outcomes("a", [1, 0, 1, 1], [1.0, 1.0, 1.0, 1.0]) + outcomes("b", [1, 0])
    after = outcomes("a", [1, 0, 1, 0], [0.0, 0.0, 0.0, 0.0]) + outcomes("b", [0, 0])
    found = compare_outcomes(before, after)
    assert [(r["task"], r["metric"]) for r in found["tasks"]] == [
        ("a", "acc"),
        ("a", "acc_norm"),
        ("b", "acc"),
    ]
    rows = [r for r in found["tasks"] if r["metric"] == "acc"]
    assert found["average"]["tasks"] == 2
    for name, value in (("vanilla", 62.5), ("unlearned", 25.0), ("difference", -37.5)):
        one, other = (row[name]["stderr"] for row in rows)
        expected = {"value": value, "stderr": pytest.approx(math.hypot(one, other) / 2)}
        assert found["average"][name] == expected


def test_different_items_are_no_pair():
    with pytest.raises(ValueError, match="different items"):
        compare_outcomes(outcomes("a", [1, 0]), outcomes("a", [1]))


def test_a_line_names_the_model_and_leaves_out_what_was_not_measured():
    assert Outcome("a", "7", 1.0).as_json("vanilla") == {
        "model": "vanilla",
        "task": "a",
        "id": "7",
        "correct": 1.0,
    }
    assert Outcome("a", "7", 1.0, 0.0).as_json("unlearned")["correct_norm"] == 0.0
