import pytest

from grail.errors import DivergenceError, InputError, did_you_mean


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("grial", " Did you mean 'grail'?"),
        ("randon", " Did you mean 'random'?"),
        ("grail", " Did you mean 'grail'?"),
        ("quantum", ""),
        ("", ""),
    ],
)
def test_did_you_mean(given, hint):
    assert did_you_mean(given, iter(["none", "grail", "random"])) == hint


def test_did_you_mean_without_choices():
    assert did_you_mean("x", []) == ""


def test_the_two_failures_are_told_apart():
    assert issubclass(InputError, ValueError)
    assert issubclass(DivergenceError, RuntimeError)
    assert not issubclass(DivergenceError, InputError)
