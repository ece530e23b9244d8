"""Two ways to measure must measure the same."""

import pytest
from races import evaluation
from races.naive import Value

from grail.evaluation.values import SampleValue


def ours(**changed):
    plain = {
        "model": "vanilla",
        "key": "d.retain.train.0",
        "domain": "d",
        "side": "retain",
        "part": "train",
        "row": 0,
        "accuracy": 0.5,
        "nll": 2.0,
        "tokens": 4,
        "extraction": 0.0,
        "min_k": 0.0,
        "min_k_plus_plus": 0.0,
        "zlib": 0.0,
        "rouge_l": 30.0,
    }
    return SampleValue(**(plain | changed))


THEIRS = {"d.retain.train.0": Value(2.0, 0.5, 30.0)}


def test_equal_numbers_pass():
    far = evaluation.differences([ours()], THEIRS)
    assert far == {"nll": 0.0, "accuracy": 0.0, "mean rouge_l": 0.0}
    evaluation.check(far)


@pytest.mark.parametrize("changed", [{"nll": 2.001}, {"accuracy": 0.75}])
def test_other_numbers_are_refused(changed):
    far = evaluation.differences([ours(**changed)], THEIRS)
    with pytest.raises(RuntimeError, match="do not measure the same"):
        evaluation.check(far)


def test_without_generations_there_is_no_text_to_compare():
    theirs = {"d.retain.train.0": Value(2.0, 0.5, None)}
    assert "mean rouge_l" not in evaluation.differences([ours(rouge_l=None)], theirs)
