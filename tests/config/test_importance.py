"""The section's defaults are the paper's; labels without a closed form are refused."""

import pytest
from pydantic import ValidationError

from grail.config.importance import Importance
from grail.config.run import parse_config
from grail.errors import InputError


def error_of(**section):
    sides = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
    with pytest.raises(InputError) as error:
        parse_config({"domains": {"d": sides}, "output": "x", "importance": section})
    return str(error.value)


def test_defaults_are_those_of_the_paper():
    found = Importance()
    assert (found.labels, found.trials) == ("random", 3)
    assert (found.substitution, found.gradients) == ("inputs_and_targets", "batched")


@pytest.mark.parametrize("labels", ["random", "true"])
@pytest.mark.parametrize("substitution", ["inputs_and_targets", "targets", "all"])
def test_labels_that_go_with_every_substitution(labels, substitution):
    Importance(labels=labels, substitution=substitution)


@pytest.mark.parametrize("gradients", ["batched", "loop"])
def test_expected_labels_where_the_model_reads_true_tokens(gradients):
    Importance(labels="expected", substitution="targets", gradients=gradients)


@pytest.mark.parametrize("given", [{}, {"substitution": "all"}])
def test_expected_labels_of_changed_inputs_have_no_closed_form(given):
    text = error_of(labels="expected", **given)
    assert text.startswith("importance: labels: expected has a closed form")
    assert given.get("substitution", "inputs_and_targets") in text
    assert text.endswith("Set substitution: targets, or labels: random.")
    assert len(text.splitlines()) == 1


def test_no_other_labels():
    assert "random, true or expected" in error_of(labels="mean")


@pytest.mark.parametrize("key", ["trials", "batch_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_counts_are_counts(key, value):
    with pytest.raises(ValidationError):
        Importance(**{key: value})


@pytest.mark.parametrize("value", [0, -1, float("inf"), True, "much"])
def test_memory_is_a_positive_number_or_no_bound(value):
    assert Importance(memory_gib=0.5).memory_gib == 0.5
    assert Importance().memory_gib is None
    with pytest.raises(ValidationError):
        Importance(memory_gib=value)


def test_the_kernel_is_for_batches():
    assert Importance().kernel == "auto"
    for kernel in ("auto", "bmm"):
        Importance(gradients="loop", kernel=kernel)
    text = error_of(gradients="loop", kernel="triton")
    assert text.startswith("importance: kernel: triton is for gradients: batched")
    assert "auto, bmm or triton" in error_of(kernel="cuda")
