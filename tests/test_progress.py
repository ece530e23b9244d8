"""Who hears nothing says nothing, but for warnings."""

import warnings

import pytest

from grail.progress import Listener, Nobody, silent


def test_silent_says_nothing(capsys):
    assert silent(1, 2, "loss 3") is None
    assert capsys.readouterr() == ("", "")


def test_nobody_hears_of_stages_and_says_nothing(capsys):
    assert isinstance(Nobody(), Listener)
    with Nobody().stage("score") as tick:
        tick(1, 2, "rows scored")
    Nobody().skipped("score")
    assert capsys.readouterr() == ("", "")


def test_nobody_hands_warnings_on_to_python():
    with pytest.warns(UserWarning, match=r"^cut rows$"):
        Nobody().warn("cut rows")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Nobody(silent=True).warn("cut rows")
