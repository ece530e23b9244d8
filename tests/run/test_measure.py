"""What is measured on a model of a run, once."""

import json

import pytest

from grail.config.file import load_config
from grail.evaluation.equal_retention import CALIBRATED
from grail.run.directory import stamp
from grail.run.inputs import read_inputs
from grail.run.measure import values_of
from grail.run.pipeline import Run


def opened(config, *sets):
    config = load_config(config, list(sets))
    return Run(config, read_inputs(config))


def test_what_was_measured_is_read_and_no_model_is_taken(finished):
    run = opened(finished())
    weights = stamp(run.folder / "unlearned")["weights"]
    values = values_of(run.folder, run.context, "unlearned", weights, pytest.fail)
    kept = json.loads((run.folder / "evaluation" / "unlearned.json").read_text())["values"]
    assert [value.as_json() for value in values] == kept
    assert {value.model for value in values} == {"unlearned"}


def test_other_weights_are_measured_again(finished):
    run, taken = opened(finished()), []
    values = values_of(run.folder, run.context, "unlearned", "other weights", taken.append)
    assert taken == ["unlearned"]
    assert len(values) == len({(v.model, v.key) for v in values})
    assert not (run.folder / "results.json").exists()  # it was about the weights before


def test_the_model_at_equal_retention_lies_between_the_two(finished):
    run = opened(finished(), "evaluation.retain_target=100")
    values_of(run.folder, run.context, CALIBRATED, "between", run._take)
    about = json.loads((run.folder / "evaluation" / f"{CALIBRATED}.json").read_text())
    assert 0 <= about["weight"] <= 1
    assert about["retain_target"] == 100
