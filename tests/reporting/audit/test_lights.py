"""A line and a light for each attack, by hand-written findings."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.lights import lights_table
from grail.reporting.tables import BAD, GOOD, MISSING, NOTE, OPEN


def entry(model, attack, amount, us, part="train", metric="US", **more):
    row = {"domain": "d", "side": "unlearn", "part": part, "metric": metric, "value": us}
    row |= {"n": 24, "error": 1.0} | more
    return {"model": model, "attack": attack, "amount": amount, "rows": [row]}


def found(*attacks, us=96.0, oracle=None, skipped=(), asked=("prune",)):
    beside = {} if oracle is None else {"beyond": us - oracle, "beyond_error": 1.0}
    measured = [
        entry("vanilla", "plain", "plain", 2.0),
        entry("unlearned", "plain", "plain", us, change=us - 2.0, change_error=1.0, **beside),
        *attacks,
    ]
    settings = Audit(attacks=list(asked)).model_dump(mode="json")
    given = {"oracle": None if oracle is None else "given", "skipped": list(skipped)}
    return given | {"measured": measured, "settings": settings}


def shown(case):
    return {row[2]: row for row in lights_table(case).rows}


@pytest.mark.parametrize(
    ("us", "change", "error", "light"),
    [
        (95.0, -1.0, 1.0, f"{GOOD} held"),
        (60.0, -36.0, 2.0, f"{BAD} comes back"),
        (60.0, -36.0, 30.0, f"{OPEN} undecided"),
    ],
)
def test_the_light_is_that_of_the_outcome(us, change, error, light):
    case = found(entry("unlearned", "prune", "0.3", us, change=change, change_error=error))
    line = shown(case)["small weights set to zero (prune 0.3)"]
    assert line[:2] == (light, "d")
    assert line[3:] == (f"{100 - us:.1f} ± 1.0", MISSING, MISSING)


def test_of_several_strengths_the_worst_is_shown():
    mild = entry("unlearned", "prune", "0.1", 95.0, change=-1.0, change_error=1.0)
    strong = entry("unlearned", "prune", "0.3", 40.0, change=-56.0, change_error=1.0)
    attacks = [row for row in lights_table(found(mild, strong)).rows if "prune" in row[2]]
    assert [row[2] for row in attacks] == ["small weights set to zero (prune 0.3)"]


@pytest.mark.parametrize(("us", "word"), [(96.0, f"{GOOD} gone"), (60.0, f"{BAD} still known")])
def test_the_model_as_it_is_comes_first(us, word):
    first, *_ = lights_table(found(us=us)).rows
    assert (first[0], first[2]) == (word, "as it is")


def test_beside_an_oracle_the_difference_and_its_interval_are_given():
    line = shown(found(us=60.0, oracle=50.0))["as it is"]
    assert line == (f"{GOOD} gone", "d", "as it is", "40.0 ± 1.0", "50.0", "-10.0 [-12.0, -8.0]")


def test_generated_answers_decide_nothing():
    more = entry("unlearned", "sample", "8", 40.0, metric="ROUGE-L", beyond=30.0, beyond_error=1.0)
    one = entry("unlearned", "sample", "1", 99.0, metric="ROUGE-L", beyond=90.0, beyond_error=1.0)
    lines = [
        row
        for row in lights_table(found(more, one, asked=("sample",))).rows
        if "asked again" in row[2]
    ]
    assert [row[0] for row in lines] == [f"{NOTE} more than it could guess"]


def test_what_was_not_tried_is_said():
    skipped = [{"attack": "adapter", "reason": "no adapter"}]
    lines = shown(found(skipped=skipped, asked=("prune", "adapter")))
    assert f"{NOTE} not tried" == lines["adapter taken off or halved: no adapter"][0]
    assert "weights rounded to few bits: not asked for" in lines
    assert "relearn: not asked for" in lines
    assert not [name for name in lines if name.startswith("small weights")]


def test_a_guess_stands_in_the_column_of_who_never_knew_but_for_relearning():
    beside = {"beyond": 35.0, "beyond_error": 1.0, "change": -1.0, "change_error": 1.0}
    attacks = [entry("unlearned", name, "10", 95.0, **beside) for name in ("prune", "relearn-few")]
    table = lights_table(found(*attacks, oracle=60.0) | {"oracle": "guess"})
    cells = {row[2].partition(" (")[0]: row[4:] for row in table.rows}
    assert cells["small weights set to zero"][0] == "40.0"
    assert cells["a tenth of the rows taught again"] == (MISSING, MISSING)
    assert "what such a model guesses" in table.note
