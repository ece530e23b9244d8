"""Rows of AUCs by hand: who is compared with whom, and who never is."""

import pytest

from grail.evaluation.membership import SCORES, membership_results
from grail.evaluation.memorization import auc_error
from grail.evaluation.values import SampleValue


def value(key, score, side="unlearn", part="train", **more):
    """A row that all scores agree on, each in units of its own."""
    given = {"model": "vanilla", "domain": "d", "side": side, "part": part, "row": 0, "key": key}
    given |= {"accuracy": 0.0, "tokens": 1, "extraction": 0.0, "nll": score, "zlib": score / 10}
    given |= {"min_k": 2 * score, "min_k_plus_plus": score - 5} | more
    return SampleValue(**given)


MEMBERS = [value("a", 1.0), value("b", 2.0), value("c", 4.0)]
HELD = [value("x", 3.0, part="heldout"), value("y", 5.0, part="heldout")]


def found(values, unseen=frozenset("xy")):
    return {
        (r.model, r.domain, r.metric): (r.value, r.n) for r in membership_results(values, unseen)
    }


def test_every_score_has_an_auc_and_its_error():
    rows = membership_results(MEMBERS + HELD, {"x", "y"})
    assert {(r.side, r.part) for r in rows} == {("unlearn", "train")}
    areas = found(MEMBERS + HELD)
    assert len(areas) == 2 * len(SCORES)
    for metric in SCORES:  # x is above a and b, y above all: 5 of 6 pairs
        assert areas["vanilla", "d", metric] == (pytest.approx(500 / 6), 5)
        error = 100 * auc_error(5 / 6, members=3, held_out=2)
        assert areas["vanilla", "d", f"{metric}-error"] == (pytest.approx(error), 5)


def test_each_auc_reads_its_own_score():
    low = {"nll": 9.0, "zlib": 9.0, "min_k": 9.0, "min_k_plus_plus": 9.0}
    names = {"nll": "AUC-loss", "zlib": "AUC-zlib", "min_k": "AUC-min-k"}
    for field, metric in (names | {"min_k_plus_plus": "AUC-min-k++"}).items():
        values = [value("a", 0.0, **low), value("x", 0.0, part="heldout", **low | {field: 10.0})]
        areas = {m: found(values)["vanilla", "d", m][0] for m in SCORES}
        assert areas == dict.fromkeys(SCORES, 50.0) | {metric: 100.0}


def test_models_and_domains_are_apart():
    more = [value("e", 9.0, model="unlearned"), value("x", 1.0, model="unlearned", part="heldout")]
    other = [value("f", 1.0, domain="other")]
    areas = found(MEMBERS + HELD + more + other)
    assert areas["unlearned", "d", "AUC-loss"] == (0.0, 2)
    assert areas["vanilla", "d", "AUC-loss"][1] == 5
    assert {domain for _, domain, _ in areas} == {"d"}


def test_only_unseen_rows_are_compared_with():
    val = [value("v", 0.0, part="val"), value("w", 9.0, part="val")]
    retain = [value("r", 0.0, side="retain"), value("s", 0.0, side="retain", part="val")]
    everything = MEMBERS + HELD + val + retain
    assert found(everything) == found(MEMBERS + HELD)
    assert found(everything, frozenset()) == {}
    assert found(everything, {"w", "r", "s", "a"})["vanilla", "d", "AUC-loss"] == (100.0, 4)
    assert found(HELD) == {}
