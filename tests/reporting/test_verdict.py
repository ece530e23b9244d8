"""One verdict: with an audit it is the audit's, without one it never passes."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.knowledge import AUDIT_FORMAT
from grail.reporting.audit.verdict import audit_verdict
from grail.reporting.tables import BAD, GOOD, NOTE, OPEN, WARNING
from grail.reporting.verdict import OUTCOMES, verdict
from grail.results import Result, Results

FREEZING = {"entries": 9, "frozen": 3, "changed": 0, "sha256_before": "a", "sha256_after": "a"}


def results(us=96.0, rs=97.0, freezing=FREEZING):
    rows = []
    for model, metrics in (("vanilla", (2.0, 98.0)), ("unlearned", (us, rs))):
        for side, metric, value in zip(("unlearn", "retain"), ("US", "RS"), metrics, strict=True):
            rows.append(Result(model, "d", side, "train", metric, value, 24))
    return Results(tuple(rows), freezing, {})


def entry(model, attack, amount, us, rs=None, **more):
    place = {"domain": "d", "part": "train", "n": 24, "error": 1.5}
    rows = [place | {"side": "unlearn", "metric": "US", "value": us} | more]
    if rs is not None:
        changed = {"change": rs - 98.0, "change_error": 1.0}
        rows.append(place | {"side": "retain", "metric": "RS", "value": rs} | changed)
    return {"model": model, "attack": attack, "amount": amount, "rows": rows}


def audit(us=96.0, after=95.0, rs=97.0, error=2.0, **more):
    measured = [
        entry("vanilla", "plain", "plain", 2.0, 98.0),
        entry("unlearned", "plain", "plain", us, rs, change=us - 2.0, change_error=1.0),
        entry("unlearned", "prune", "0.3", after, change=after - us, change_error=error),
    ]
    settings = Audit(attacks=["prune"]).model_dump(mode="json")
    found = {"format": AUDIT_FORMAT, "oracle": None, "settings": settings, "skipped": []}
    found |= {"weights": {}, "retraining": "", "seconds": {}, "measured": measured} | more
    return found | audit_verdict(found)


def lights(found):
    return {check.subject: check.light for check in found.checks}


@pytest.mark.parametrize(
    ("run", "outcome", "words"),
    [
        ({}, "undecided", "has not been attacked yet"),
        ({"us": 60.0}, "undecided", "in doubt: d, to be removed: partly forgotten"),
        ({"us": 20.0}, "fail", "d, to be removed: still known"),
        ({"rs": 10.0}, "fail", "d, to be kept: lost"),
        ({"freezing": {**FREEZING, "changed": 1}}, "fail", "FREEZING FAILED"),
    ],
)
def test_without_an_audit_nothing_passes(run, outcome, words):
    found = verdict(results(**run))
    assert found.outcome == outcome
    assert words in found.headline
    assert found.sentences[0] == f"{OUTCOMES[outcome][1]}: {found.headline}"
    assert lights(found)["attacks"] == OPEN
    if outcome == "undecided":
        assert "grail audit RUNDIR" in found.sentences[-1]


@pytest.mark.parametrize(
    ("case", "outcome", "bad"),
    [
        ({}, "pass", set()),
        ({"after": 40.0}, "fail", {"d, to be removed", "attacks"}),
        ({"after": 40.0, "error": 50.0}, "undecided", set()),
        ({"us": 70.0}, "fail", {"d, to be removed"}),
        ({"rs": 80.0}, "fail", {"d, to be kept"}),
        ({"skipped": [{"attack": "prune on unlearned", "reason": "broke"}]}, "pass", set()),
    ],
)
def test_with_an_audit_its_outcome_decides_and_the_lights_agree(case, outcome, bad):
    given = audit(**case)
    found = verdict(results(us=case.get("us", 96.0), rs=case.get("rs", 97.0)), given)
    assert found.outcome == outcome
    assert (found.outcome == "pass") == given["passed"]
    assert {subject for subject, light in lights(found).items() if light == BAD} == bad


def test_what_the_audit_clears_is_no_second_verdict():
    """US 60 alone is in doubt, RS 69 alone is lost; beside the oracle both are within bounds."""
    given = audit(us=60.0, after=60.0, rs=84.0, oracle="given")
    for one in given["measured"]:
        for row in one["rows"]:
            oracles = 55.0 if row["metric"] == "US" else 98.0
            row |= {"beyond": row["value"] - oracles, "beyond_error": 1.0}
    given |= audit_verdict(given)
    assert given["passed"], given["sentences"]
    found = verdict(results(us=60.0, rs=84.0), given)
    assert found.outcome == "pass"
    assert lights(found)["d, to be removed"] == GOOD
    assert lights(found)["d, to be kept"] == NOTE
    assert not any(sentence.startswith(WARNING) for sentence in found.sentences)


def test_frozen_entries_that_moved_fail_whatever_the_audit_says():
    found = verdict(results(freezing={**FREEZING, "changed": 2}), audit())
    assert found.outcome == "fail"
    assert found.headline.startswith("removed, but: frozen entries: FREEZING FAILED")


@pytest.mark.parametrize("after", [60.0, 98.0])
def test_rows_that_are_only_measured_and_have_not_held_fail_whatever_the_audit_says(after):
    """The audit does not measure them: an earlier request that came back is no pass."""
    found = results()
    pair = zip(("vanilla", "unlearned"), (80.0, after), strict=True)
    more = [Result(model, "earlier", "check", "val", "RS", value, 24) for model, value in pair]
    said = verdict(Results((*found.rows, *more), FREEZING, {}), audit())
    assert said.outcome == "fail"
    assert said.headline.startswith("removed, but: earlier, only measured: ")
    assert lights(said)["earlier, only measured"] == BAD


def test_an_attack_that_broke_off_is_undecided():
    given = audit()
    given["measured"].pop()
    given["skipped"] = [{"attack": "prune on unlearned", "reason": "the attacked model broke"}]
    given |= audit_verdict(given)
    found = verdict(results(), given)
    assert (given["passed"], found.outcome) == (False, "undecided")
    assert "not every attack could be made" in found.headline


def test_an_older_audit_does_not_count():
    assert verdict(results(), {"format": AUDIT_FORMAT - 1}) == verdict(results())


def test_the_table_begins_with_the_lights():
    table = verdict(results()).table
    assert table.rows[0][0] == f"{GOOD} forgotten"
    assert table.rows[-1][:2] == (f"{OPEN} not tried yet", "attacks")
