"""Stability of sets: measured between draws, within limits, and the same when repeated."""

import pytest
import trials


@pytest.fixture(scope="module")
def lines(finished_run):
    return list(trials.stability(finished_run, [1, 2], rows=2))


def values(one):
    return one["summary"]["unlearned"]["train"]


def test_there_is_a_line_for_each_number_of_trials(lines):
    assert [one["method"] for one in lines] == ["1 trial", "2 trials"]
    for one in lines:
        assert values(one).keys() == set(trials.COLUMNS.values())
        assert all(0 < value < 100 for value in values(one).values())


def test_two_draws_of_the_same_seed_are_the_same_draw(finished_run, monkeypatch):
    monkeypatch.setattr(trials, "SEEDS", (5, 5))
    (one,) = trials.stability(finished_run, [1], rows=2)
    assert values(one)["side"] == values(one)["frozen"] == 100
    assert values(one)["others"] < 100
