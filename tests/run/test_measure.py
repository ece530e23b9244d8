"""What is measured on a model of a run, once."""

import json
from dataclasses import replace

import pytest

from grail.config.file import load_config
from grail.data.heldout import HELD_OUT
from grail.evaluation.equal_retention import CALIBRATED
from grail.results import GUESS
from grail.run.directory import stamp
from grail.run.inputs import read_inputs
from grail.run.measure import guessed, values_of
from grail.run.pipeline import Run


def opened(config, *sets):
    config = load_config(config, list(sets))
    return Run(config, read_inputs(config))


def test_what_was_measured_is_read_and_no_model_is_taken(finished):
    run = opened(finished())
    weights = stamp(run.folder / "unlearned")["weights"]
    run.context.take = pytest.fail
    values = values_of(run.context, "unlearned", weights)
    kept = json.loads((run.folder / "evaluation" / "unlearned.json").read_text())["values"]
    assert [value.as_json() for value in values] == kept
    assert {value.model for value in values} == {"unlearned"}


def test_other_weights_are_measured_again(finished):
    run, taken = opened(finished()), []
    run.context.take = taken.append
    values = values_of(run.context, "unlearned", "other weights")
    assert taken == ["unlearned"]
    assert len(values) == len({(v.model, v.key) for v in values})
    assert not (run.folder / "results.json").exists()  # it was about the weights before


def test_the_model_at_equal_retention_lies_between_the_two(finished):
    run = opened(finished(), "evaluation.retain_target=100")
    values_of(run.context, CALIBRATED, "between")
    about = json.loads((run.folder / "evaluation" / f"{CALIBRATED}.json").read_text())
    assert 0 <= about["weight"] <= 1
    assert about["retain_target"] == 100


def test_heldout_rows_stand_for_the_guess_on_train_and_val_rows(finished):
    run = opened(finished())
    context = run.context
    domain = context.rows[0].domain
    val = [row for row in context.rows if row.place == (domain, "unlearn", "val")]
    assert val
    held = [replace(row, sample=replace(row.sample, part=HELD_OUT)) for row in val]
    context.rows = (*context.rows, *held)
    context.take("vanilla")
    found = guessed(context, [domain])
    kept = json.loads((run.folder / "evaluation" / "vanilla.json").read_text())["values"]
    known = {value["key"]: value["accuracy"] for value in kept}
    for part in ("train", "val"):
        own = [value for value in found if value.part == part]
        assert [value.key for value in own] == [row.key for row in held]
        assert [value.accuracy for value in own] == [known[row.key] for row in val]
    assert {value.model for value in found} == {GUESS}


def test_without_heldout_rows_the_model_from_before_the_facts_guesses(finished):
    run = opened(finished())
    context = run.context
    context.take("vanilla")
    found = guessed(context, [row.domain for row in context.rows])
    lost = [row for row in context.rows if row.side == "unlearn"]
    assert [value.key for value in found] == [row.key for row in lost]
    context.start_over(context.config.vanilla_seed)  # as it was before it was taught
    untaught = context.evaluator(generate=False).run(GUESS, lost)
    assert [v.nll for v in found] == pytest.approx([v.nll for v in untaught])


def test_no_guess_is_measured_where_the_looks_had_none(finished):
    run = opened(finished())
    file = run.folder / "evaluation" / "guess.json"
    file.write_text("{}")
    run.context.take = pytest.fail
    assert values_of(run.context, GUESS, "") == []
    assert not file.exists()
