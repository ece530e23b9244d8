"""The sentences of an audit, from findings written by hand."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.knowledge import BACK, NOT, PARTLY, REMOVED, TRACE, UNDECIDED
from grail.reporting.audit.verdict import HEADLINES, audit_verdict
from grail.reporting.tables import WARNING


def row(domain, side, part, metric, value, **more):
    place = {"domain": domain, "side": side, "part": part, "metric": metric}
    return place | {"value": value, "n": 24, "error": 1.5} | more


def plain(model, us, rs, nll, **more):
    rows = [
        row("d", "unlearn", "train", "US", us, **more),
        row("d", "unlearn", "val", "US", us - 3, **more),
        row("d", "retain", "train", "RS", rs, change=rs - 98.0, change_error=1.0),
        row("general", "general", "val", "NLL", nll, change=nll - 2.9, change_error=0.1),
    ]
    return {"model": model, "attack": "plain", "amount": "plain", "rows": rows}


def attacked(attack, amount, us, change, error=2.0, **more):
    rows = [row("d", "unlearn", "train", "US", us, change=change, change_error=error, **more)]
    return {"model": "unlearned", "attack": attack, "amount": amount, "rows": rows}


def found(*attacks, us=96.0, rs=97.0, nll=3.0, **more):
    measured = [plain("vanilla", 2.0, 98.0, 2.9), plain("unlearned", us, rs, nll, change=us - 2.0)]
    settings = Audit().model_dump(mode="json")
    base = {"oracle": None, "settings": settings, "skipped": [], "weights": {}}
    base |= {"retraining": "", "seconds": {}}
    return base | {"measured": [*measured, *attacks]} | more


def test_what_stays_removed_passes_and_says_how_sure_that_is():
    said = audit_verdict(found(attacked("quantise", "int4", 95.0, -1.0)))
    assert (said["outcome"], said["passed"]) == (REMOVED, True)
    assert said["outcomes"] == {"d": {"US": REMOVED}}
    text = "\n".join(said["sentences"])
    assert said["sentences"][0] == HEADLINES[REMOVED]
    assert "d: removed (98.0 → 4.0 ± 1.5 % answer tokens right; n 24)" in text
    assert "Brings back little or nothing (points at most): quantise +1.0 ± 2.0." in text
    assert "a change below 4.0 points could be missed" in text
    assert "No oracle" in text
    assert "Kept: d, train rows (98.0 → 97.0 ± 1.5; n 24); general text (2.90 → 3.00 nats" in text
    assert WARNING not in text.replace(f"{WARNING}Not tried", "")
    assert "Exact retraining" not in text


@pytest.mark.parametrize(("us", "word"), [(4.0, NOT), (60.0, PARTLY)])
def test_a_model_that_knows_is_called_so_first(us, word):
    said = audit_verdict(found(us=us))
    assert said["sentences"][0] == WARNING + HEADLINES[word]
    assert not said["passed"]
    assert said["sentences"][2].startswith(f"{WARNING}Still known in other words: d (")


def test_what_comes_back_is_named_with_the_strongest_amount():
    attacks = [attacked("prune", "0.1", 70.0, -26.0), attacked("prune", "0.3", 40.0, -56.0)]
    said = audit_verdict(found(*attacks, attacked("quantise", "int8", 96.0, 0.0)))
    assert said["outcome"] == BACK
    text = "\n".join(said["sentences"])
    told = "d by prune 0.3 to 60.0 % answer tokens right (+56.0 ± 2.0 points; n 24)."
    assert f"{WARNING}Comes back or stays: {told}" in text
    assert "Brings back little or nothing (points at most): quantise +0.0 ± 2.0." in text


def test_relearning_is_decided_by_the_oracle():
    rises = attacked("relearn-few", "10", 40.0, -56.0)
    alone = audit_verdict(found(rises))
    assert alone["outcome"] == UNDECIDED
    assert any(
        "without an oracle this cannot be told from guessing" in s for s in alone["sentences"]
    )
    assert alone["sentences"][0].startswith(f"{WARNING}No oracle: undecided: ")
    beside = attacked("relearn-few", "10", 40.0, -56.0, beyond=-30.0, beyond_error=3.0)
    said = audit_verdict(found(beside, oracle="given"))
    assert said["outcome"] == BACK
    assert any("+30.0 ± 3.0 above the oracle" in sentence for sentence in said["sentences"])


def test_what_is_learnt_as_well_by_the_oracle_is_not_called_little():
    """38 points more, and the oracle shows as much under the same attack."""
    taught = attacked("relearn-unrelated", "20", 58.0, -38.0, beyond=-1.0, beyond_error=3.0)
    said = audit_verdict(found(taught, attacked("quantise", "int4", 95.0, -1.0), oracle="given"))
    assert said["outcome"] == REMOVED
    text = "\n".join(said["sentences"])
    assert "Brings back little or nothing (points at most): quantise +1.0 ± 2.0." in text
    told = "Rises, but not above the oracle or what may be left (points at most): "
    assert f"{told}relearn-unrelated +38.0 ± 2.0." in text


def test_few_rows_that_rise_decide_nothing_and_never_pass():
    said = audit_verdict(found(attacked("quantise", "int4", 50.0, -46.0, error=46.0)))
    assert (said["outcome"], said["passed"]) == (UNDECIDED, False)
    told = "Rises, but there are too few rows to be sure (points at most): quantise +46.0 ± 46.0."
    assert WARNING + told in said["sentences"]


def test_without_an_attack_or_with_one_that_broke_off_nothing_passes():
    held = attacked("quantise", "int8", 96.0, 0.0)
    broke = [{"attack": "prune on unlearned", "reason": "the attacked model broke"}]
    assert audit_verdict(found(held))["passed"]
    describing = attacked("interpolate", "0.5", 10.0, -86.0)
    written = {"model": "unlearned", "attack": "sample", "amount": "8"}
    written |= {"rows": [row("d", "unlearn", "train", "ROUGE-L", 100.0)]}
    for case in (found(), found(held, skipped=broke), found(describing), found(written)):
        assert (audit_verdict(case)["outcome"], audit_verdict(case)["passed"]) == (REMOVED, False)
    two = found(held)
    for entry in two["measured"][:2]:
        entry["rows"] += [
            {**line, "domain": "e"} for line in entry["rows"] if line["domain"] == "d"
        ]
    assert not audit_verdict(two)["passed"], "one domain was not attacked"


@pytest.mark.parametrize(("harm", "limit"), [("rs", 83.0), ("nll", 3.4), ("val", 83.0)])
def test_a_harmed_model_does_not_pass(harm, limit):
    """15 points of RS from 98, on train or val rows; 0.5 nats from 2.9."""
    sign = 1 if harm == "nll" else -1
    for beyond in (-0.01, 0.01):
        value = limit + sign * beyond
        own = {} if harm == "val" else {harm: value}
        case = found(attacked("prune", "0.1", 96.0, 0.0), **own)
        if harm == "val":
            line = row("d", "retain", "val", "RS", value, change=value - 98.0, change_error=1.0)
            case["measured"][1]["rows"].append(line)
        said = audit_verdict(case)
        assert said["outcome"] == REMOVED
        assert said["passed"] == (beyond < 0)
        told = sum(s.startswith(f"{WARNING}Harmed: ") for s in said["sentences"])
        assert told == (beyond > 0)


@pytest.mark.parametrize("moved", [0.0, 1e-9])
def test_frozen_entries_that_moved_do_not_pass(moved):
    inside = {"moved": {"frozen": moved, "model": None, "blocks": {}}}
    said = audit_verdict(found(attacked("prune", "0.1", 96.0, 0.0), inside=inside))
    assert said["passed"] == (moved == 0)


def test_an_attack_that_one_attacker_finished_was_made():
    held = attacked("relearn-few", "10", 95.0, -1.0, beyond=0.0, beyond_error=1.0)
    broke = [{"attack": "relearn-few@9 on unlearned", "reason": "the attacked model broke"}]
    case = found(held, skipped=broke, oracle="given")
    assert audit_verdict(case)["passed"]
    case["measured"].pop()
    case["measured"].append(attacked("quantise", "int4", 95.0, -1.0))
    assert not audit_verdict(case)["passed"]


def test_the_oracle_is_compared_with_first_and_with_an_interval():
    points = [
        attacked(
            "relearn-few", step, us, us - 96.0, beyond=beyond, beyond_error=2.0, attacker="0.1"
        )
        for step, us, beyond in (("5", 80.0, -8.0), ("10", 70.0, -6.0))
    ]
    case = found(*points, attacked("prune", "0.3", 96.0, 0.0, beyond=3.0), oracle="given")
    case["measured"][1]["rows"][0] |= {"beyond": 1.0, "beyond_error": 1.5}
    first = audit_verdict(case)["sentences"][1]
    assert first == (
        "d, answer tokens right above the oracle's, in points, worst case [± 2 standard errors]: "
        "as it is -1.0 [-4.0, +2.0]; relearn-few after 5 steps at 0.1 +8.0 [+4.0, +12.0]; "
        "prune 0.3 -3.0."
    )
    assert "oracle's, in points" not in "".join(audit_verdict(found(*points))["sentences"])


def test_a_trace_is_named_and_does_not_pass():
    case = found(attacked("prune", "0.3", 99.0, 0.0, beyond=30.0), us=99.0, oracle="given")
    case["measured"][1]["rows"][0] |= {"beyond": 35.0, "beyond_error": 2.0}
    said = audit_verdict(case)
    assert (said["outcome"], said["passed"]) == (TRACE, False)
    assert said["sentences"][0] == WARNING + HEADLINES[TRACE]
    told = "Below guessing, which is a trace: d, train rows (-35.0 [-39.0, -31.0] points; n 24)."
    assert WARNING + told in said["sentences"]


@pytest.mark.parametrize("general", [True, False])
@pytest.mark.parametrize("value", [20.9, 21.1])
def test_broken_text_does_not_pass(value, general):
    """More than 1.2 times 15 %, by two standard errors of 1.5."""
    rows = [row("d", "unlearn", "train", "Repetition", value)]
    speaks = [{"model": "unlearned", "attack": "speak", "amount": "greedy", "rows": rows}]
    if general:
        text = [row("general", "general", "val", "Repetition", 15.0)]
        speaks.append({"model": "vanilla", "attack": "speak", "amount": "greedy", "rows": text})
    said = audit_verdict(found(attacked("prune", "0.1", 96.0, 0.0), *speaks))
    broken = general and value > 21
    assert said["outcome"] == REMOVED
    assert said["passed"] == (not broken)
    text = "\n".join(said["sentences"])
    words = (
        f"d, {value} ± 1.5 % repetition on unlearn questions (vanilla on general text 15.0; n 24)"
    )
    assert (f"{WARNING}Broken text: {words}" in text) == broken
    assert (f"Speaks: {words}" in text) == (general and not broken)
    assert ("broken text (there is no general text to compare with)" in text) == (not general)


@pytest.mark.parametrize(
    ("possible", "oracle", "told", "words"),
    [
        ("--set preset=exact", 20.0, True, "is cheaper too"),
        ("--set preset=exact", 40.0, False, ""),
        ("--set preset=exact", None, True, "may be cheaper too"),
        ("", 20.0, False, ""),
    ],
)
def test_exact_retraining_is_offered_where_it_is_possible_and_not_dearer(
    possible, oracle, told, words
):
    seconds = {"unlearned": 30.0} | ({} if oracle is None else {"oracle": oracle})
    text = "\n".join(audit_verdict(found(retraining=possible, seconds=seconds))["sentences"])
    assert ("Exact retraining is possible" in text) == told
    assert words in text
    assert ("grail run FILE.yaml --set preset=exact --output ANOTHER" in text) == told
    times = f"Training took 30 s here and {oracle:g} s for the oracle." if oracle else "Training"
    assert (times in text) == (oracle is not None)


def test_a_base_that_knows_is_named():
    off = attacked("adapter", "off", 3.0, -93.0)
    said = audit_verdict(found(off))
    assert said["outcome"] == BACK
    text = "\n".join(said["sentences"])
    assert "Comes back or stays: d by adapter taken off to 97.0 % answer tokens right" in text
    assert "Give away merged weights only" in text
    held = audit_verdict(found(attacked("adapter", "off", 95.0, -1.0)))
    assert "merged weights" not in "".join(held["sentences"])


def test_what_was_not_tried_is_told():
    skipped = [{"attack": "relearn-other", "reason": "there are no unlearn val rows"}]
    settings = Audit(attacks=["prune"]).model_dump(mode="json")
    said = audit_verdict(found(skipped=skipped, settings=settings))
    last = said["sentences"][-1]
    for words in ("quantise (not asked for)", "relearn-other (there are no unlearn val rows)"):
        assert words in last


def test_who_guessed_is_said_and_what_the_guess_does_not_tell():
    rows = attacked("quantise", "int4", 60.0, -1.0, beyond=-5.0, beyond_error=3.0)
    taught = attacked("relearn-few", "10", 20.0, -41.0, beyond=-45.0, beyond_error=3.0)
    case = found(rows, taught, us=61.0, oracle="guess", guess={"d": False})
    for one in case["measured"][1]["rows"]:
        one |= {"beyond": -4.0, "beyond_error": 3.0} if one["metric"] == "US" else {}
    said = audit_verdict(case)
    text = "\n".join(said["sentences"])
    assert said["outcome"] == UNDECIDED  # what was taught may be new
    assert "d: undecided (98.0 → 39.0 ± 1.5 % answer tokens right; never knew 35.0; n 24)" in text
    assert "above the guess" in text
    assert "(d: the model from before the facts, after the examples" in text
    assert "counted from 0" not in text
    held_out = audit_verdict(case | {"guess": {"d": True}})["sentences"]
    assert any("(d: the model before unlearning on held-out rows)" in s for s in held_out)
    alone = audit_verdict(case | {"guess": {}})["sentences"]
    assert any("What is left of d is counted from 0" in sentence for sentence in alone)
