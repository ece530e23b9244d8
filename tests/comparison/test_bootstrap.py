"""The paired bootstrap: against a loop of its own, zero for equals, a known shift found."""

import random

import numpy as np
import pytest

from grail.comparison import bootstrap
from grail.comparison.bootstrap import avg_and_hs, differences
from grail.results import harmonic_success

PLACES = [(d, s) for d in ("a", "b") for s in ("unlearn", "retain")]


def drawn(seed, seeds=3, samples=5, shift=0.0):
    generator = np.random.default_rng(seed)
    return {
        place: np.clip(generator.uniform(0.2, 0.6, (seeds, samples + i)) + shift, 0, 1)
        for i, place in enumerate(PLACES)
    }


def slow(one, other, draws, draw):
    """The definition, one number at a time."""
    found = []
    seeds = len(one["a", "unlearn"])
    for _ in range(draws):
        avg, hs = [], []
        columns = {p: draw.choices(range(v.shape[1]), k=v.shape[1]) for p, v in one.items()}
        for _ in range(seeds):
            line = draw.randrange(seeds)
            values = []
            for method in (one, other):
                mean = {
                    p: sum(method[p][line][c] for c in columns[p]) / len(columns[p])
                    for p in columns
                }
                us = {d: 100 - 100 * mean[d, "unlearn"] for d in ("a", "b")}
                rs = {d: 100 * mean[d, "retain"] for d in ("a", "b")}
                harmonic = [harmonic_success(us[d], rs[d]) for d in us]
                values.append((sum([*us.values(), *rs.values()]) / 4, sum(harmonic) / 2))
            avg.append(values[0][0] - values[1][0])
            hs.append(values[0][1] - values[1][1])
        found.append((sum(avg) / seeds, sum(hs) / seeds))
    return np.array(found)


def test_against_a_loop_of_its_own():
    one, other = drawn(0), drawn(1)
    expected = slow(one, other, 4000, random.Random(2))
    found = differences(one, other)
    for i, metric in enumerate(("Avg", "HS")):
        low, high = np.percentile(expected[:, i], [2.5, 97.5])
        room = 0.06 * (high - low)  # about three standard errors of such a percentile
        assert found[metric].low == pytest.approx(low, abs=room)
        assert found[metric].high == pytest.approx(high, abs=room)
        assert found[metric].mean == pytest.approx(expected[:, i].mean(), abs=room)


def test_seeds_count_apart_from_samples():
    """Seeds that differ much and samples that do not: only drawing seeds gives this width."""
    one = {p: np.full((2, 4), [[0.2], [0.8]]) for p in PLACES}
    one = {p: v if p[1] == "retain" else 1 - v for p, v in one.items()}
    other = {p: np.full((2, 4), 0.5) for p in PLACES}
    found = differences(one, other)["Avg"]
    assert (found.mean, found.low, found.high) == pytest.approx((0.0, -30.0, 30.0))


def test_seeds_that_agree_do_not_make_more_rows_of_the_rows():
    """Five runs that say the same about the same rows know as much of other rows as one does."""
    one, other = drawn(0, seeds=1, samples=40), drawn(1, seeds=1, samples=40)
    alone = differences(one, other)["Avg"]
    again = [{p: np.repeat(v, 5, axis=0) for p, v in method.items()} for method in (one, other)]
    five = differences(*again)["Avg"]
    assert five.mean == pytest.approx(alone.mean)
    assert five.high - five.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_identical_methods_differ_by_nothing():
    for found in differences(drawn(0), drawn(0)).values():
        assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_a_known_shift_is_found_and_pairing_makes_it_certain():
    one, other = drawn(0), drawn(0)
    one = {p: v + (0.1 if p[1] == "retain" else -0.1) for p, v in one.items()}
    found = differences(one, other)["Avg"]
    assert (found.mean, found.low, found.high) == pytest.approx((10, 10, 10))
    assert differences(one, other)["HS"].low > 0


def test_one_seed_draws_samples_only():
    one, other = drawn(0, seeds=1), drawn(1, seeds=1)
    found = differences(one, other)["Avg"]
    assert found.low < found.mean < found.high


def test_the_same_numbers_every_time_and_in_pieces(monkeypatch):
    one, other = drawn(0), drawn(1)
    whole = differences(one, other)
    assert differences(one, other) == whole
    monkeypatch.setattr(bootstrap, "ENTRIES", 1000)
    for metric, found in differences(one, other).items():
        assert found.mean == whole[metric].mean
        assert found.low == pytest.approx(whole[metric].low, abs=0.5)


def test_avg_and_hs_are_those_of_the_results():
    means = {("a", "unlearn"): np.array([0.2]), ("a", "retain"): np.array([0.8])}
    assert avg_and_hs(means) == pytest.approx(np.array([[80.0, 80.0]]))
    nothing = {("a", "unlearn"): np.array([1.0]), ("a", "retain"): np.array([0.0])}
    assert avg_and_hs(nothing).tolist() == [[0.0, 0.0]]
