"""Processes of their own."""

import os

import pytest
from races.worker import alone, start_to_finish


def test_a_way_runs_in_another_process():
    found = alone(pids, os.getpid())
    assert found.gave == [os.getpid(), False]
    assert found.seconds > 0


def test_an_error_comes_back_with_its_words():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        alone(broken)


def test_work_that_fails_is_no_result():
    with pytest.raises(RuntimeError, match="leave ended with 3"):
        start_to_finish(leave, 3, fresh=False)


def pids(parent):
    return lambda: [parent, os.getpid() == parent]


def broken():
    return 1 / 0


def leave(code):
    raise SystemExit(code)
