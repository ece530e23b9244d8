"""Outcomes at the borders of their thresholds, from findings written by hand."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.knowledge import (
    BACK,
    NOT,
    NOTHING,
    PARTLY,
    REMOVED,
    TRACE,
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


@pytest.mark.parametrize(("now", "word"), [(45.1, REMOVED), (44.9, TRACE), (2.0, TRACE)])
def test_less_than_the_oracle_guesses_is_a_trace(now, word):
    case = judge(found(now=now, oracle=60.0), "d", "US")
    assert case.outcome == word
    assert bool(case.below) == (word == TRACE)
    assert judge(found(now=now, oracle=60.0, metric="ES"), "d", "ES").outcome == REMOVED
    back = judge(found(("quantise", "int4", 90.0, 1.0), now=now, oracle=60.0), "d", "US")
    assert (back.outcome, bool(back.below)) == (BACK, word == TRACE)


def test_val_rows_below_guessing_are_a_trace_too():
    case = found(("quantise", "int4", 55.0, 1.0), now=55.0, oracle=60.0)
    case["measured"][1]["rows"].append(row(20.0, part="val", beyond=-40.0))
    assert judge(case, "d", "US").outcome == TRACE


@pytest.mark.parametrize(("val", "word"), [(15.0, REMOVED), (15.1, PARTLY)])
def test_what_is_still_known_of_val_rows_was_not_removed(val, word):
    case = found(("quantise", "int4", 5.0, 1.0))
    case["measured"][1]["rows"].append(row(val, part="val"))
    assert judge(case, "d", "US").outcome == word


@pytest.mark.parametrize(("after", "word"), [(40.0, REMOVED), (49.9, REMOVED), (50.1, BACK)])
@pytest.mark.parametrize("now", [28.0, 50.0])
def test_relearning_ends_within_a_bound_of_the_oracle_whatever_it_began_with(after, word, now):
    case = found(("relearn-few", "10", after, 5.0), now=now, oracle=40.0)
    assert judge(case, "d", "US").outcome == word


@pytest.mark.parametrize(("error", "word"), [(5.0, BACK), (5.6, UNDECIDED)])
def test_a_few_rows_above_the_oracle_decide_nothing(error, word):
    case = found(("relearn-few", "10", 51.0, 1.0), now=30.0, oracle=40.0)
    case["measured"][-1]["rows"][0]["beyond_error"] = error
    assert judge(case, "d", "US").outcome == word


def test_every_measured_point_of_a_curve_counts():
    points = [("relearn-few", "5", 51.0, 1.0), ("relearn-few", "20", 41.0, 1.0)]
    case = judge(found(*points, now=30.0, oracle=40.0), "d", "US")
    assert (case.outcome, [row.amount for row in case.sure]) == (BACK, ["5"])


def test_relearning_decides_nothing_where_the_oracle_was_not_attacked_so():
    case = found(("relearn-few", "10", 56.0, 5.0), now=30.0, oracle=40.0)
    assert judge(case, "d", "US").outcome == BACK
    for entry in case["measured"]:
        if entry["attack"] == "relearn-few":
            for row in entry["rows"]:
                del row["beyond"]
    assert judge(case, "d", "US").outcome == UNDECIDED


@pytest.mark.parametrize(
    ("off", "oracle", "word"),
    [(88.1, None, BACK), (87.9, None, UNDECIDED), (60.0, 40.0, BACK), (41.0, 40.0, REMOVED)],
)
def test_a_base_without_its_adapter_may_only_guess(off, oracle, word):
    """Without an oracle it knows the rows if it knows about as much as the vanilla model."""
    case = found(("adapter", "off", off, 3.0), now=4.0 if oracle is None else 40.0, oracle=oracle)
    assert judge(case, "d", "US").outcome == word


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
        ("relearn-few", "area", "relearn-few area"),
        ("adapter", "off", "adapter taken off"),
        ("sample", "8", "best of 8 answers"),
        ("extract", "0.25", "answer with 25 % given"),
        ("plain", "plain", "as it is"),
    ],
)
def test_attacks_have_names(attack, amount, words):
    assert Known(attack, amount, 1.0, 2).name == words


def test_the_attacker_of_a_worst_case_is_named():
    worst = Known("relearn-few", "10", 1.0, 2, attacker="0.002, all")
    assert worst.name == "relearn-few after 10 steps at 0.002, all"


def test_an_interval_is_around_the_difference():
    assert Known("a", "b", 50.0, 9, beyond=10.0, beyond_error=2.5).above(2) == "+10.0 [+5.0, +15.0]"
    assert Known("a", "b", 50.0, 9, beyond=-10.0).above(2) == "-10.0"
    assert Known("a", "b", 50.0, 9).above(2) == ""


def test_the_curves_of_single_attackers_do_not_decide():
    """Nor does one alone: the worst case over all of them does."""
    case = found(("relearn-few", "10", 45.0, 1.0), now=40.0, oracle=40.0)
    case["measured"].append(entry("unlearned", "relearn-few@9", "10", row(99.0)))
    assert judge(case, "d", "US").outcome == REMOVED


def beside_a_guess(case, error):
    """Return an audit that counts from a guess, whose differences have this standard error."""
    for entries in case["measured"]:
        entries["rows"][0]["beyond_error"] = error
    return case | {"oracle": "guess"}


@pytest.mark.parametrize(
    ("now", "after", "word"),
    [
        (50.0, ("quantise", "int8", 52.0, 1.0), REMOVED),  # 40 % is what can be guessed
        (56.0, ("quantise", "int8", 56.0, 1.0), PARTLY),
        (50.0, ("quantise", "int8", 90.0, 1.0), BACK),
        (30.0, ("relearn-few", "10", 54.0, 1.0), REMOVED),  # no more than can be guessed untaught
        (30.0, ("relearn-few", "10", 90.0, 1.0), UNDECIDED),  # taught anew, or come back?
    ],
)
def test_beside_a_guess_all_counts_from_it_but_it_does_not_decide_on_teaching(now, after, word):
    case = judge(beside_a_guess(found(after, now=now, oracle=40.0), 3.0), "d", "US")
    assert case.outcome == word
    (attack,) = case.attacks
    assert (attack.never is None) == attack.relearnt == (attack.above(2.0) == "")


def test_a_guess_must_surely_be_missed_to_call_it_a_trace():
    case = found(now=20.0, oracle=40.0)
    assert judge(beside_a_guess(case, 2.0), "d", "US").outcome == TRACE
    assert judge(beside_a_guess(case, 14.0), "d", "US").outcome == REMOVED


@pytest.mark.parametrize("error", [None, 16.0])
def test_a_guess_on_too_few_rows_decides_nothing(error):
    """Two standard errors are more than twice what may be left, or there is one row."""
    case = found(now=45.0, oracle=40.0)
    assert judge(beside_a_guess(case, 14.0), "d", "US").outcome == REMOVED
    assert judge(beside_a_guess(case, error), "d", "US").outcome == UNDECIDED
