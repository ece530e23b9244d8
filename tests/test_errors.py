"""The errors for the user: problems stay apart, and words get a hint."""

import pickle

import pytest

from grail.errors import DivergenceError, InputError, collecting, did_you_mean, reading


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


def test_an_error_keeps_its_problems_apart():
    assert InputError("one\nstill one").problems == ["one\nstill one"]
    error = InputError(problem for problem in ["a", "b", "a"])
    assert error.problems == ["a", "b"]
    assert str(error) == "a\nb"
    assert pickle.loads(pickle.dumps(error)).problems == ["a", "b"]


def test_problems_are_collected_and_the_rest_goes_on():
    problems = ["old"]
    with collecting(problems, "key: "):
        raise InputError(["a", "b"])
    with collecting(problems):
        problems.append("fine")
    assert problems == ["old", "key: a", "key: b", "fine"]
    with pytest.raises(ZeroDivisionError), collecting(problems):
        _ = 1 / 0


@pytest.mark.parametrize(
    "break_it", [lambda: {}["a"], lambda: None.a, lambda: int("x"), lambda: 1 / 0]
)
def test_a_file_of_the_wrong_shape_is_named(break_it):
    said = r"^run/a.json is damaged \(.*Error.*\)\. Make it again\.$"
    with pytest.raises(InputError, match=said), reading("run/a.json", "Make it again."):
        break_it()
    with pytest.raises(InputError, match=r"^a is not as it was$"), reading("a"):
        raise ValueError("a is not as it was")
    with pytest.raises(InputError, match=r"^own$"), reading("a"):
        raise InputError("own")
    with pytest.raises(OSError, match="disk"), reading("a"):
        raise OSError("disk")
