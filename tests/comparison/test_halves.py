"""One half of the train rows decides, the other is reported: none is in both."""

import json
from types import SimpleNamespace

import pytest

from grail.comparison.halves import (
    check_halves,
    deciding,
    deciding_success,
    with_reported_rows,
    without_deciding,
)
from grail.errors import InputError
from grail.results import Result, make_results, write_results

KEYS = [f"k{n}" for n in range(7)]


def test_halves_are_the_same_in_any_order_and_the_larger_one_is_reported():
    half = deciding(KEYS)
    assert half == deciding(reversed(KEYS))
    assert len(half) == 3
    assert half < set(KEYS)


def samples():
    accuracies = {key: n / 10 for n, key in enumerate(KEYS)}
    sides = {
        ("d", "unlearn"): accuracies,
        ("d", "retain"): {k: 1 - v for k, v in accuracies.items()},
    }
    return {("unlearned", part): {0: sides} for part in ("train", "val")}


def test_the_score_is_that_of_the_deciding_half():
    forgotten = sum(1 - KEYS.index(key) / 10 for key in deciding(KEYS)) / 3
    assert deciding_success(samples(), 0, "Avg") == pytest.approx(100 * forgotten)
    assert deciding_success(samples(), 0, "HS") == pytest.approx(100 * forgotten)


def test_what_is_left_of_the_samples():
    shown = without_deciding(samples())
    assert set(shown["unlearned", "train"][0]["d", "retain"]) == set(KEYS) - deciding(KEYS)
    assert shown["unlearned", "val"] == samples()["unlearned", "val"]


def test_results_of_the_reported_half(tmp_path):
    rows = [
        Result("unlearned", "d", side, part, metric, 50.0, 7)
        for side, metric in (("unlearn", "US"), ("retain", "RS"))
        for part in ("train", "val")
    ]
    rows.append(Result("unlearned", "general", "general", "train", "NLL", 3.0, 1))
    write_results(tmp_path / "results.json", make_results(rows, {"frozen": 1}, ""))
    lines = [
        {"model": "unlearned", "domain": "d", "side": side, "part": part, "key": key}
        | {"accuracy": n / 10, "nll": float(n)}
        for side in ("unlearn", "retain")
        for part in ("train", "val")
        for n, key in enumerate(KEYS)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = with_reported_rows(tmp_path)
    left = [n for n, key in enumerate(KEYS) if key not in deciding(KEYS)]
    mean = sum(left) / 4
    assert found.value("unlearned", "d", "retain", "train", "RS") == pytest.approx(10 * mean)
    assert found.value("unlearned", "d", "unlearn", "train", "US") == pytest.approx(100 - 10 * mean)
    assert found.value("unlearned", "d", "unlearn", "train", "NLL") == pytest.approx(mean)
    assert found.value("unlearned", "d", "retain", "val", "RS") == 50.0
    assert found.value("unlearned", "general", "general", "train", "NLL") == 3.0
    assert found.summary["train"]["unlearned"]["Avg"] == pytest.approx(50.0)
    assert found.freezing == {"frozen": 1}


def test_a_side_with_a_single_row_cannot_choose():
    row = SimpleNamespace(domain="d", side="unlearn", part="train")
    check_halves([row, row])
    with pytest.raises(InputError, match=r"d\.unlearn has one train row"):
        check_halves([row])
