"""Rows that nothing was trained on, and none that anything may have been."""

import pytest

from grail.config.teach import Teach
from grail.data.heldout import HELD_OUT, unseen
from grail.data.samples import Sample

APART = Teach(include_val=False)


def sample(part, row, text=None, side="unlearn", domain="d"):
    text = f"{domain} {side} {part} {row}" if text is None else text
    return Sample(domain, side, part, row, text, "yes")


BOTH = [
    sample(part, row, side=side)
    for side in ("unlearn", "retain")
    for part in ("train", "val")
    for row in range(2)
]


@pytest.mark.parametrize("teach", [Teach(), APART, None, Teach(adapter="x", include_val=False)])
def test_held_out_rows_are_unseen_whatever_the_vanilla_model(teach):
    held = [sample(HELD_OUT, row) for row in range(3)]
    assert unseen(BOTH + held, teach) == {row.key for row in held}


@pytest.mark.parametrize("given", [None, Teach(adapter="x"), Teach(adapter="x", include_val=False)])
def test_of_a_given_model_nobody_knows_what_it_has_read(given):
    assert unseen(BOTH, given) == frozenset()


def test_val_rows_that_the_vanilla_model_is_trained_on_are_none():
    assert unseen(BOTH, Teach()) == frozenset()


def test_val_rows_stand_in_where_the_vanilla_model_is_trained_here_without_them():
    assert unseen(BOTH, APART) == {"d.unlearn.val.0", "d.unlearn.val.1"}


def test_a_domain_with_held_out_rows_needs_no_val_rows():
    other = [sample("val", 0, domain="e"), sample(HELD_OUT, 0)]
    assert unseen(BOTH + other, APART) == {"e.unlearn.val.0", "d.unlearn.heldout.0"}


@pytest.mark.parametrize(("side", "domain"), [("unlearn", "d"), ("retain", "d"), ("unlearn", "e")])
def test_a_val_row_that_is_a_train_row_of_any_side_has_been_read(side, domain):
    again = sample("train", 9, text="D  unlearn VAL 1", side=side, domain=domain)
    assert unseen([*BOTH, again], APART) == {"d.unlearn.val.0"}
