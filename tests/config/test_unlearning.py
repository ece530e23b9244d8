"""The unlearning section: when rows rest, and which objectives its help names."""

import pytest

from grail.config.run import parse_config
from grail.config.schema import field_at
from grail.config.unlearning import Unlearning, Until
from grail.unlearning.objectives import OBJECTIVES

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}


def until_of(until):
    raw = {"domains": {"a": SIDES}, "output": "x", "teach": True, "unlearning": {"until": until}}
    return parse_config(raw).unlearning.until


def test_when_a_row_is_forgotten():
    assert until_of({}) == Unlearning().until == Until(row_accuracy=0.1, domain_accuracy=None)
    given = until_of({"domain_accuracy": 0.2})
    assert (given.row_accuracy, given.domain_accuracy) == (0.1, 0.2)
    off = until_of({"row_accuracy": None})
    assert (off.row_accuracy, off.domain_accuracy) == (None, None)
    assert until_of(None) == off


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_help_names_every_objective(name):
    section, _ = field_at(["objective"], Unlearning)
    words = (section.model_fields["objective"].description or "").replace(",", "").split()
    assert name in words
