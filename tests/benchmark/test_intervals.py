"""Lines of several seeds: kept beside those of other runs, and shown with their intervals."""

import json
import math

import intervals
import machine
import pytest
from intervals import ends, keep, line, table

COLUMNS = {"Left": "left", "General": "general NLL"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)


def test_an_interval_of_three_values_is_recomputed_from_its_definition():
    values = [1.0, 2.0, 4.0]
    mean = sum(values) / 3
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    half = intervals.T[3] * deviation / math.sqrt(3)
    assert ends(values) == pytest.approx((mean - half, mean + half))


@pytest.mark.parametrize("count", intervals.T)
def test_the_quantiles_are_those_of_students_t(count):
    """The density of t, integrated numerically up to the quantile, leaves 2.5 %."""
    freedom, steps = count - 1, 200_000
    scale = math.gamma(count / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    width = intervals.T[count] / steps
    points = ((n + 0.5) * width for n in range(steps))
    inside = sum((1 + x * x / freedom) ** (-count / 2) for x in points) * width * scale
    assert inside == pytest.approx(0.475, abs=1e-4)


def test_the_table_says_whether_there_is_an_interval():
    many = [line("a", seed, {"left": 50.0 + seed, "general NLL": 3.0}) for seed in range(3)]
    low, high = ends([50.0, 51.0, 52.0])
    shown = table("T", COLUMNS, many, "Percent.")
    assert shown.rows == (("a", f"51.0 [{low:.1f}, {high:.1f}]", "3.00 [3.00, 3.00]"),)
    assert "3 seeds" in shown.note
    assert "Without an interval" not in shown.note
    mixed = table("T", COLUMNS, [*many, line("b", 0, {"left": 1.0})], "Percent.")
    assert "Without an interval: one seed" in mixed.note
    one = table("T", COLUMNS, [line("a", 4, {"left": 50.0})], "Percent.")
    assert one.rows[0][:2] == ("a", "50.0")
    assert "Single runs (seed 4)" in one.note


def test_percent_is_cut_at_its_limits_and_nats_are_not():
    lines = [line("a", n, {"left": v, "general NLL": v}) for n, v in enumerate((99.0, 100.0))]
    _, left, general = table("T", COLUMNS, lines, "").rows[0]
    assert left.endswith("100.0]")
    assert not general.endswith("100.00]")
    lines = [line("a", n, {"x beyond": value}) for n, value in enumerate((0.0, 1.0))]
    low, high = ends([0.0, 1.0])
    assert low < 0
    assert (
        table("T", {"Points": "x beyond"}, lines, "").rows[0][1] == f"0.5 [{low:.1f}, {high:.1f}]"
    )


def test_other_seeds_and_methods_are_kept_and_the_same_replaced():
    keep("x", {}, [line("a", 0, {"v": 1.0}), line("b", 0, {"v": 2.0})])
    path = keep("x", {"new": 1}, [line("a", 1, {"v": 3.0}), line("a", 0, {"v": 4.0})])
    found = json.loads(path.read_text())
    values = {
        (o["method"], o["seed"]): o["summary"]["unlearned"]["train"]["v"]
        for o in found["measurements"]
    }
    assert values == {("a", 0): 4.0, ("b", 0): 2.0, ("a", 1): 3.0}
    assert found["settings"] == {"new": 1}
