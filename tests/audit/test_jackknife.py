"""Standard errors: those of the textbook for means, and of pairs where values are paired."""

import math
import statistics
from dataclasses import replace

import pytest

from grail.audit.jackknife import estimates, gaps
from grail.evaluation.values import SampleValue


def values(accuracies, model="m", domain="d", side="unlearn"):
    place = (domain, side, "train")
    return [
        SampleValue(model, f"{'.'.join(place)}.{i}", *place, i, a, 1 - a, 3, a, 0.0, 0.0, 0.0)
        for i, a in enumerate(accuracies)
    ]


ONE, OTHER = [0.1, 0.5, 0.4, 0.9], [0.0, 0.7, 0.4, 1.0]


def test_of_a_mean_it_is_the_textbook_standard_error():
    found = estimates(values(ONE))["d", "unlearn", "train", "US"]
    assert found.value == pytest.approx(100 - 100 * statistics.mean(ONE))
    assert found.error == pytest.approx(100 * statistics.stdev(ONE) / math.sqrt(4))
    assert found.n == 4


def test_pairs_are_taken_by_key_and_not_by_order():
    changed = estimates(values(ONE), minus=list(reversed(values(OTHER))))
    found = changed["d", "unlearn", "train", "US"]
    gaps = [100 * (b - a) for a, b in zip(ONE, OTHER, strict=True)]
    assert found.value == pytest.approx(statistics.mean(gaps))
    assert found.error == pytest.approx(statistics.stdev(gaps) / 2)


def test_only_common_rows_are_compared():
    found = estimates(values(ONE[:3]), minus=values(OTHER))["d", "unlearn", "train", "US"]
    assert found.n == 3
    assert found.value == pytest.approx(100 * (sum(OTHER[:3]) - sum(ONE[:3])) / 3)
    assert estimates(values(ONE), minus=values(OTHER, domain="e")) == {}


def test_one_sample_has_no_error():
    found = estimates(values([0.3]))["d", "unlearn", "train", "US"]
    assert found.error is None
    assert found.n == 1


def test_domains_and_sides_are_apart():
    both = values(ONE) + values(OTHER, side="retain") + values(OTHER, domain="e")
    found = estimates(both)
    assert {place[:2] for place in found} == {("d", "unlearn"), ("d", "retain"), ("e", "unlearn")}
    assert found["d", "retain", "train", "RS"].value == pytest.approx(100 * statistics.mean(OTHER))


def test_a_ruined_model_has_errors_too():
    """The square of a perplexity of e^600 has no float."""
    ruined = [replace(value, nll=600.0 + i) for i, value in enumerate(values(ONE))]
    found = estimates(ruined)["d", "unlearn", "train", "PPL"]
    assert math.isfinite(found.error)
    assert found.error > found.value / 10
    half = [replace(value, nll=value.nll / 2) for value in ruined]
    assert estimates(half)["d", "unlearn", "train", "PPL"].error > 0


def test_a_difference_is_paired_where_it_can_be_and_of_two_samples_otherwise():
    key = ("d", "unlearn", "train", "US")
    paired = estimates(values(ONE), minus=values(OTHER))
    assert gaps(values(ONE), values(OTHER)) == paired
    apart = [replace(value, key=f"other.{value.key}") for value in values(OTHER[:3])]
    found = gaps(values(ONE), apart)[key]
    own, other = estimates(values(ONE))[key], estimates(apart)[key]
    assert found.value == pytest.approx(own.value - other.value)
    assert found.error**2 == pytest.approx(own.error**2 + other.error**2)
    assert found.n == 4
    assert gaps(values(ONE), values(OTHER, domain="e")) == {}
    assert gaps(values(ONE), apart[:1])[key].error is None
