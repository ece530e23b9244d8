"""Rows are compared sample by sample, on the seeds that both have."""

import json

import pytest

from grail.comparison.paired import Samples, compared
from grail.comparison.rows import Cell
from grail.config.run import Config


def cell(folder, seed, values):
    """A cell with (domain, side) -> {key: accuracy}, written in the order given."""
    made = Cell("row", seed, {}, folder / str(seed), Config.model_construct())
    made.folder.mkdir(parents=True)
    lines = [
        {"model": m, "key": k, "domain": d, "side": s, "part": "val", "accuracy": a}
        for m in ("vanilla", "unlearned")
        for (d, s), keys in values.items()
        for k, a in keys.items()
    ]
    lines.append({"model": "unlearned", "side": "general", "domain": "general", "key": "g"})
    text = "".join(json.dumps({"part": "val", "accuracy": 0.0} | line) + "\n" for line in lines)
    (made.folder / "samples.jsonl").write_text(text)
    return made


def sides(unlearn, retain):
    return {("a", "unlearn"): unlearn, ("a", "retain"): retain}


def test_values_are_lines_of_seeds_and_columns_of_keys(tmp_path):
    found = [
        cell(tmp_path, 1, sides({"y": 0.2, "x": 0.1}, {"z": 1.0})),
        cell(tmp_path, 0, sides({"x": 0.3, "y": 0.4}, {"z": 0.5})),
    ]
    found = Samples(found)
    assert found.seeds("unlearned", "val") == {0, 1}
    assert found.seeds("unlearned", "train") == found.seeds("calibrated", "val") == set()
    values = found.values("unlearned", "val", [0, 1])
    assert values.keys() == {("a", "unlearn"), ("a", "retain")}
    assert values["a", "unlearn"].tolist() == [[0.3, 0.4], [0.1, 0.2]]


def test_compared_on_common_seeds(tmp_path):
    one = Samples(cell(tmp_path / "one", seed, sides({"x": 0.1}, {"z": 0.9})) for seed in (0, 1, 2))
    other = Samples(cell(tmp_path / "two", seed, sides({"x": 0.3}, {"z": 0.5})) for seed in (2, 1))
    avg, hs = compared(one, other, "unlearned", "val")
    assert (avg["metric"], hs["metric"]) == ("Avg", "HS")
    assert (avg["seeds"], avg["resampled"]) == ([1, 2], "seeds and samples")
    assert (avg["mean"], avg["low"], avg["high"]) == pytest.approx((30, 30, 30))
    assert compared(one, other, "unlearned", "train") == []


def test_one_seed_is_said(tmp_path):
    one = Samples([cell(tmp_path / "one", 0, sides({"x": 0.1}, {"z": 0.9}))])
    (avg, _) = compared(one, one, "unlearned", "val")
    assert (avg["resampled"], avg["mean"]) == ("samples", 0)


def test_other_samples_are_not_paired(tmp_path):
    one = Samples([cell(tmp_path / "one", 0, sides({"x": 0.1}, {"z": 0.9}))])
    other = Samples([cell(tmp_path / "two", 0, sides({"y": 0.1}, {"z": 0.9}))])
    assert compared(one, other, "unlearned", "val") == []


def test_a_domain_with_one_side_alone_has_no_difference(tmp_path):
    one, other = (
        Samples([cell(tmp_path / name, 0, {("a", "unlearn"): {"x": value, "y": 0.5}})])
        for name, value in (("one", 0.2), ("other", 0.8))
    )
    assert one.seeds("unlearned", "val") == {0}
    assert compared(one, other, "unlearned", "val") == []
