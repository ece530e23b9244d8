"""Processes of their own."""

import os
import sys
from functools import partial
from operator import truediv

import pytest
from races.worker import alone, start_to_finish


def test_a_way_runs_in_another_process():
    found = alone(partial, os.getpid)
    assert found.gave != os.getpid()
    assert found.seconds > 0


@pytest.mark.parametrize("made", [(truediv,), (partial, truediv)])  # getting ready, running
def test_an_error_comes_back_with_its_words(made):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        alone(*made, 1, 0)


def test_work_that_fails_is_no_result():
    with pytest.raises(RuntimeError, match="exit ended with 3"):
        start_to_finish(sys.exit, 3, fresh=False)
