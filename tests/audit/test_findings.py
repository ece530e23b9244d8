"""Rows of findings against means taken by hand."""

import math
import statistics

import pytest

from grail.audit.findings import findings, mean_height
from grail.evaluation.values import SampleValue

KEYS = [f"d.unlearn.train.{i}" for i in range(4)]


def values(label, accuracies, keys=KEYS):
    return [
        SampleValue(label, key, "d", "unlearn", "train", 0, a, 1.0, 5, a, 0.0, 0.0, 0.0)
        for key, a in zip(keys, accuracies, strict=True)
    ]


@pytest.fixture
def measured():
    return {
        ("vanilla", "plain", "plain"): values("plain", [1.0, 1.0, 0.8, 1.0]),
        ("unlearned", "plain", "plain"): values("plain", [0.2, 0.0, 0.0, 0.2]),
        ("oracle", "plain", "plain"): values("plain", [0.3, 0.3, 0.3, 0.3]),
        ("unlearned", "prune", "0.1"): values("0.1", [0.4, 0.0, 0.4, 0.2]),
        ("unlearned", "relearn-few@0.1", "2"): values("2", [0.4, 0.6, 0.2], KEYS[1:]),
        ("unlearned", "relearn-few@0.1", "6"): values("6", [0.8, 0.6, 0.4], KEYS[1:]),
        ("oracle", "relearn-few@0.1", "2"): values("2", [0.3, 0.5, 0.1], KEYS[1:]),
    }


def us(entries, *key):
    (entry,) = [e for e in entries if (e["model"], e["attack"], e["amount"]) == key]
    (found,) = [row for row in entry["rows"] if row["metric"] == "US"]
    return found


def test_changes_are_against_vanilla_or_against_the_model_without_attack(measured):
    found = findings(measured, "given")
    assert "change" not in us(found, "vanilla", "plain", "plain")
    assert us(found, "unlearned", "plain", "plain")["change"] == pytest.approx(85.0)
    assert us(found, "unlearned", "prune", "0.1")["change"] == pytest.approx(-15.0)
    relearnt = us(found, "unlearned", "relearn-few", "2")
    assert relearnt["change"] == pytest.approx(-100 * (0.4 + 0.6 + 0.0) / 3)
    assert relearnt["n"] == 3


def test_the_oracle_is_compared_with_under_the_same_attack_or_not_at_all(measured):
    found = findings(measured, "given")
    assert us(found, "unlearned", "relearn-few", "2")["beyond"] == pytest.approx(-10.0)
    assert "beyond" not in us(found, "unlearned", "prune", "0.1")
    measured["oracle", "prune", "0.1"] = values("0.1", [0.2, 0.0, 0.4, 0.2])
    found = findings(measured, "given")
    assert us(found, "unlearned", "prune", "0.1")["beyond"] == pytest.approx(100 * (0.2 - 0.25))
    with_oracle = us(found, "unlearned", "relearn-few", "6")
    assert "beyond" not in with_oracle
    assert "beyond" not in us(found, "unlearned", "relearn-few", "area")
    assert "beyond" not in us(found, "oracle", "plain", "plain")


def test_without_an_oracle_nothing_is_beyond_it(measured):
    for key in [key for key in measured if key[0] == "oracle"]:
        del measured[key]
    assert not any("beyond" in row for entry in findings(measured, None) for row in entry["rows"])


def test_an_oracle_itself_is_beyond_itself_by_nothing(measured):
    found = findings(measured, "itself")
    assert us(found, "unlearned", "relearn-few", "6")["beyond"] == 0
    assert us(found, "vanilla", "plain", "plain")["beyond"] == pytest.approx(-85.0)


def test_a_curve_begins_with_the_model_as_it_is_on_the_same_rows(measured):
    found = findings(measured, "given")
    start = us(found, "unlearned", "relearn-few", "0")
    assert (start["value"], start["n"]) == (pytest.approx(100 - 20 / 3), 3)
    heights = {0: 100 - 20 / 3, 2: 60.0, 6: 40.0}
    by_hand = (2 * (heights[0] + heights[2]) / 2 + 4 * (heights[2] + heights[6]) / 2) / 6
    assert us(found, "unlearned", "relearn-few", "area")["value"] == pytest.approx(by_hand)
    amounts = [
        e["amount"] for e in found if (e["model"], e["attack"]) == ("unlearned", "relearn-few")
    ]
    assert amounts == ["0", "2", "6", "area"]


def test_the_worst_case_is_taken_at_every_step_and_for_each_model_by_itself(measured):
    """A slow rate is the worst at step 2, a fast one at step 6; the oracle has its own."""
    measured["unlearned", "relearn-few@0.9", "2"] = values("2", [0.5, 0.7, 0.9], KEYS[1:])
    measured["unlearned", "relearn-few@0.9", "6"] = values("6", [0.0, 0.1, 0.2], KEYS[1:])
    measured["oracle", "relearn-few@0.9", "2"] = values("2", [0.1, 0.1, 0.1], KEYS[1:])
    found = findings(measured, "given")
    two, six = (us(found, "unlearned", "relearn-few", step) for step in ("2", "6"))
    assert (two["attacker"], six["attacker"]) == ("0.9", "0.1")
    assert (two["value"], six["value"]) == (pytest.approx(30.0), pytest.approx(40.0))
    assert us(found, "oracle", "relearn-few", "2")["attacker"] == "0.1"
    assert two["beyond"] == pytest.approx(-100 * (2.1 - 0.9) / 3)
    differences = [0.5 - 0.3, 0.7 - 0.5, 0.9 - 0.1]
    assert two["beyond_error"] == pytest.approx(100 * statistics.stdev(differences) / math.sqrt(3))
    heights = {0: 100 - 20 / 3, 2: 30.0, 6: 40.0}
    assert us(found, "unlearned", "relearn-few", "area")["value"] == pytest.approx(
        mean_height(heights)
    )
    fast = {0: 100 - 20 / 3, 2: 30.0, 6: 90.0}
    assert us(found, "unlearned", "relearn-few@0.9", "area")["value"] == pytest.approx(
        mean_height(fast)
    )


def test_the_area_above_the_oracle_is_the_difference_of_the_areas(measured):
    measured["oracle", "relearn-few@0.1", "6"] = values("6", [0.4, 0.5, 0.3], KEYS[1:])
    found = findings(measured, "given")
    own, other = (us(found, m, "relearn-few", "area") for m in ("unlearned", "oracle"))
    assert own["beyond"] == pytest.approx(own["value"] - other["value"])


def test_mean_height_by_hand():
    assert mean_height({0: 10.0, 5: 20.0, 10: 40.0}) == pytest.approx((5 * 15 + 5 * 30) / 10)
    assert mean_height({2: 7.0, 9: 7.0, 0: 7.0}) == pytest.approx(7.0)


def test_a_guess_is_compared_with_as_it_is_under_every_attack(measured):
    guess = [0.5, 0.1, 0.3, 0.1]
    for key in [key for key in measured if key[0] == "oracle"]:
        del measured[key]
    measured["guess", "plain", "plain"] = values("plain", guess)
    found = findings(measured, "guess")
    for key, own in measured.items():
        if key[0] != "guess" and "@" not in key[1]:
            beyond = us(found, *key)["beyond"]
            assert beyond == pytest.approx(25.0 - 100 * statistics.mean(v.accuracy for v in own))
    relearnt = us(found, "unlearned", "relearn-few", "2")
    assert relearnt["beyond"] == pytest.approx(100 * (sum(guess[1:]) - 0.4 - 0.6 - 0.2) / 3)
    assert "beyond" not in us(found, "guess", "plain", "plain")
