"""Races: in turn, and compared round by round."""

import pytest
from races import clock


def test_ways_run_in_turn():
    seen = []
    seconds = clock.race({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 3)
    assert "".join(seen) == "ababab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_way_takes_the_time_that_passes(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def way():
        now[0] += 2.5

    assert clock.timed(way) == 2.5


def test_a_ratio_is_the_median_over_rounds_and_not_of_the_medians():
    seconds = {"slow": [2.0, 30.0, 8.0], "fast": [1.0, 10.0, 2.0]}  # 2, 3, 4; medians 8 and 2
    assert clock.ratio(seconds, "slow", "fast") == 3.0
    assert clock.medians(seconds) == {"slow": 8.0, "fast": 2.0}


def test_rounds_must_belong_together():
    with pytest.raises(ValueError, match="shorter"):
        clock.ratio({"slow": [1.0, 2.0], "fast": [1.0]}, "slow", "fast")
