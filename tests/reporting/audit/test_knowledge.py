"""Outcomes at the borders of their thresholds, from findings written by hand."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.knowledge import (
    BACK,
    NOT,
    NOTHING,
    PARTLY,
    REMOVED,
    UNDECIDED,
    Known,
    audit_domains,
    judge,
    known,
    metrics,
    strongest,
)


def row(known, metric="US", domain="d", side="unlearn", part="train", **more):
    """A row of unlearn rows by what is known of them; differences in known, too."""
    sign = -1 if metric == "US" else 1
    value = 100 - known if metric == "US" else known
    signed = {k: v if k.endswith("error") else sign * v for k, v in more.items()}
    place = {"domain": domain, "side": side, "part": part, "metric": metric}
    return place | {"value": value, "n": 24, "error": 2.0} | signed


def entry(model, attack, amount, *rows):
    return {"model": model, "attack": attack, "amount": amount, "rows": list(rows)}


def found(*attacks, vanilla=98.0, now=4.0, oracle=None, metric="US"):
    """Findings of one domain; ``attacks`` are (attack, amount, known, error of the change)."""
    beyond = (lambda k: {}) if oracle is None else lambda k: {"beyond": k - oracle}
    entries = [
        entry("vanilla", "plain", "plain", row(vanilla, metric, **beyond(vanilla))),
        entry(
            "unlearned",
            "plain",
            "plain",
            row(now, metric, change=now - vanilla, change_error=2.0, **beyond(now)),
        ),
    ]
    for attack, amount, after, error in attacks:
        change = {"change": after - now, "change_error": error}
        entries.append(
            entry("unlearned", attack, amount, row(after, metric, **change, **beyond(after)))
        )
    return {
        "measured": entries,
        "oracle": None if oracle is None else "given",
        "settings": Audit().model_dump(mode="json"),
        "skipped": [],
    }


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, REMOVED),
        ({"now": 15.0}, REMOVED),
        ({"now": 15.1}, PARTLY),
        ({"now": 87.9}, PARTLY),
        ({"now": 88.1}, NOT),
        ({"now": 99.0}, NOT),
        ({"vanilla": 14.0, "now": 2.0}, NOTHING),
        ({"oracle": 60.0, "now": 74.0}, REMOVED),
        ({"oracle": 60.0, "now": 76.0}, PARTLY),
        ({"oracle": 60.0, "now": 2.0}, REMOVED),
        ({"oracle": 90.0, "now": 98.0}, NOTHING),
    ],
)
@pytest.mark.parametrize("metric", ["US", "ES"])
def test_without_attack_it_is_the_level_and_the_fall_that_count(given, word, metric):
    assert judge(found(**given, metric=metric), "d", metric).outcome == word


@pytest.mark.parametrize(
    ("attack", "word"),
    [
        (("quantise", "int4", 40.0, 5.0), BACK),
        (("quantise", "int4", 13.9, 1.0), REMOVED),  # less than 10 points
        (("quantise", "int4", 14.9, 1.0), REMOVED),  # not above what may be left
        (("quantise", "int4", 40.0, 18.1), UNDECIDED),  # not two standard errors
        (("quantise", "int4", 13.9, 9.0), REMOVED),  # not much, however unsure
        (("quantise", "int4", 40.0, None), BACK),
        (("interpolate", "0.5", 98.0, 1.0), REMOVED),
        (("relearn-few", "10", 60.0, 5.0), UNDECIDED),
        (("paraphrase", "worst", 60.0, 5.0), BACK),
    ],
)
def test_an_attack_must_surely_raise_what_is_known(attack, word):
    assert judge(found(attack), "d", "US").outcome == word


@pytest.mark.parametrize(("val", "word"), [(15.0, REMOVED), (15.1, PARTLY)])
def test_what_is_still_known_of_val_rows_was_not_removed(val, word):
    case = found(("quantise", "int4", 5.0, 1.0))
    case["measured"][1]["rows"].append(row(val, part="val"))
    assert judge(case, "d", "US").outcome == word


@pytest.mark.parametrize(("after", "word"), [(40.0, REMOVED), (54.0, REMOVED), (56.0, BACK)])
def test_what_the_oracle_relearns_too_does_not_come_back(after, word):
    assert judge(found(("relearn-few", "10", after, 5.0), oracle=40.0), "d", "US").outcome == word


def test_relearning_decides_nothing_where_the_oracle_was_not_attacked_so():
    case = found(("relearn-few", "10", 56.0, 5.0), oracle=40.0)
    assert judge(case, "d", "US").outcome == BACK
    for entry in case["measured"]:
        if entry["attack"] == "relearn-few":
            for row in entry["rows"]:
                del row["beyond"]
    assert judge(case, "d", "US").outcome == UNDECIDED


def test_an_oracle_itself_is_not_asked_what_it_lost():
    case = found(vanilla=98.0, now=95.0, oracle=95.0)
    assert judge(case, "d", "US").outcome == NOTHING
    case = found(vanilla=98.0, now=60.0, oracle=60.0) | {"oracle": "itself"}
    assert judge(case, "d", "US").outcome == REMOVED


def test_known_turns_successes_round():
    case = found(("quantise", "int4", 40.0, 5.0), oracle=30.0)
    plain, attacked = known(case, "unlearned", "d", "train", "US")
    assert (plain.value, plain.change, plain.beyond) == (4.0, -94.0, -26.0)
    assert (attacked.value, attacked.change, attacked.beyond) == (40.0, 36.0, 10.0)
    assert attacked.change_error == 5.0
    assert list(known(case, "unlearned", "other", "train", "US")) == []


def test_measured_metrics_and_domains_are_found():
    case = found()
    case["measured"][0]["rows"] += [row(9.0, "ES"), row(9.0, "US", domain="e")]
    assert metrics(case) == ["US", "ES"]
    assert audit_domains(case) == ["d", "e"]
    assert audit_domains(case, "retain") == []


def test_all_strengths_that_win_are_named():
    attacks = [("prune", "0.1", 30.0, 1.0), ("prune", "0.3", 50.0, 1.0), ("prune", "0.5", 5.0, 1.0)]
    assert [one.amount for one in judge(found(*attacks), "d", "US").rising] == ["0.1", "0.3"]


def test_the_strongest_of_each_attack_is_the_first_of_the_largest():
    rows = [Known(a, str(i), v, 4) for i, (a, v) in enumerate([("b", 1), ("a", 3), ("b", 2)])]
    rows.append(Known("b", "3", 2, 4))
    assert [row.amount for row in strongest(rows, lambda row: row.value)] == ["2", "1"]


@pytest.mark.parametrize(
    ("attack", "amount", "words"),
    [
        ("quantise", "int8", "quantise int8"),
        ("relearn-few", "10", "relearn-few after 10 steps"),
        ("relearn-few", "area", "relearn-few, area"),
    ],
)
def test_attacks_have_names(attack, amount, words):
    assert Known(attack, amount, 1.0, 2).name == words
