"""Which values a kind takes, at its limits and just outside of them."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from grail import kinds

LIMITS = {
    # kind: (allowed, refused)
    "Count": ([1, 10**6], [0, -1, 1.0, "1", True, None]),
    "Fraction": ([1e-9, 0.5, 1, 1.0], [0, -0.1, 1.1, math.nan, True]),
    "Accuracy": ([0, 0.5, 1], [-0.1, 1.1, math.nan, False]),
    "Share": ([0, 0.999], [1, -0.1, math.nan]),
    "Positive": ([1e-30, 3, 1e30], [0, -1, math.inf, math.nan, True]),
    "NotNegative": ([0, 1e30], [-1e-30, math.inf, math.nan, False]),
    "Seed": ([0, 2**31 - 1], [-1, 2**31, 1.5, "0", True]),
    "Name": (["x"], ["", 3, None]),
    "Percent": ([1e-9, 100], [0, 100.1, True]),
    "DomainName": (["privacy", "a-b_3"], ["", "a b", "a/b", "general", "."]),
    "Phase": ([["a"], ["a", "b"]], [[], "a", ["a b"], ["general"], [3]]),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_kind_takes_what_it_says(name):
    check = TypeAdapter(getattr(kinds, name)).validate_python
    allowed, refused = LIMITS[name]
    for value in allowed:
        assert check(value) == value
    for value in refused:
        with pytest.raises(ValidationError):
            check(value)


def test_words_are_a_name_or_names():
    for value in ("x", [], ["x", "y"]):
        assert kinds.words(value) is value
    for value in (3, None, ["x", 3], ("x",), {"x": 1}):
        with pytest.raises(ValueError, match="a name or a list of names"):
            kinds.words(value)


def test_a_section_knows_its_keys_and_does_not_change():
    class Small(kinds.Section):
        size: kinds.Count = 1

    with pytest.raises(ValidationError, match="Extra"):
        Small(length=3)
    with pytest.raises(ValidationError, match="frozen"):
        Small().size = 2
