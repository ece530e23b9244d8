"""Who hears nothing says nothing, but for warnings."""

import warnings

import pytest

from grail.progress import Listener, NullListener, silent


def test_silent_says_nothing(capsys):
    assert silent(1, 2, "loss 3") is None
    assert capsys.readouterr() == ("", "")


def test_nobody_hears_of_stages_and_says_nothing(capsys):
    assert isinstance(NullListener(), Listener)
    with NullListener().stage("score") as tick:
        tick(1, 2, "rows scored")
    NullListener().skipped("score")
    assert capsys.readouterr() == ("", "")


def test_nobody_hands_warnings_on_to_python():
    with pytest.warns(UserWarning, match=r"^cut rows$"):
        NullListener().warn("cut rows")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NullListener(silent=True).warn("cut rows")
