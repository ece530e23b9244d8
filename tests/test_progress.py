"""The null listener prints nothing and passes warnings on to Python."""

import warnings

import pytest

from grail.progress import Listener, NullListener, silent


def test_silent_says_nothing(capsys):
    assert silent(1, 2, "loss 3") is None
    assert capsys.readouterr() == ("", "")


def test_the_null_listener_prints_nothing(capsys):
    assert isinstance(NullListener(), Listener)
    with NullListener().stage("score") as tick:
        tick(1, 2, "rows scored")
    NullListener().skipped("score")
    assert capsys.readouterr() == ("", "")


def test_the_null_listener_passes_warnings_on_to_python():
    with pytest.warns(UserWarning, match=r"^cut rows$"):
        NullListener().warn("cut rows")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NullListener(silent=True).warn("cut rows")
