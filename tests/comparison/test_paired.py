"""Rows are compared sample by sample, on the seeds that both have."""

import json

import pytest

from grail.comparison.paired import compared, read_samples
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


def test_accuracies_are_by_model_and_part_seed_side_and_key(tmp_path):
    found = [
        cell(tmp_path, 1, sides({"y": 0.2, "x": 0.1}, {"z": 1.0})),
        cell(tmp_path, 0, sides({"x": 0.3, "y": 0.4}, {"z": 0.5})),
    ]
    samples = read_samples(found)
    assert samples.keys() == {("unlearned", "val")}
    by_seed = samples["unlearned", "val"]
    assert by_seed[0] == sides({"x": 0.3, "y": 0.4}, {"z": 0.5})
    assert by_seed[1] == sides({"x": 0.1, "y": 0.2}, {"z": 1.0})


def test_samples_are_paired_by_key_and_not_by_line(tmp_path):
    one = read_samples([cell(tmp_path / "one", 0, sides({"y": 0.2, "x": 0.6}, {"z": 1.0}))])
    other = read_samples([cell(tmp_path / "two", 0, sides({"x": 0.6, "y": 0.2}, {"z": 1.0}))])
    for line in compared(one, other, "unlearned", "val"):
        assert (line["mean"], line["low"], line["high"]) == (0, 0, 0)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_a_text_may_hold_separators_that_are_no_line_feed(separator, tmp_path):
    made = cell(tmp_path, 0, sides({"x": 0.1}, {"z": 0.9}))
    file = made.folder / "samples.jsonl"
    line = json.loads(file.read_text().splitlines()[-2]) | {"key": "t", "generation": separator}
    file.write_text(file.read_text() + json.dumps(line, ensure_ascii=False) + "\n")
    assert read_samples([made])["unlearned", "val"][0]["a", "retain"] == {"z": 0.9, "t": 0.9}


def test_compared_on_common_seeds(tmp_path):
    one = read_samples(
        cell(tmp_path / "one", seed, sides({"x": 0.1}, {"z": 0.9})) for seed in (0, 1, 2)
    )
    other = read_samples(
        cell(tmp_path / "two", seed, sides({"x": 0.3}, {"z": 0.5})) for seed in (2, 1)
    )
    avg, hs = compared(one, other, "unlearned", "val")
    assert (avg["metric"], hs["metric"]) == ("Avg", "HS")
    assert (avg["seeds"], avg["resampled"]) == ([1, 2], "seeds and samples")
    assert (avg["mean"], avg["low"], avg["high"]) == pytest.approx((30, 30, 30))
    assert compared(one, other, "unlearned", "train") == []


def test_one_seed_is_said(tmp_path):
    one = read_samples([cell(tmp_path / "one", 0, sides({"x": 0.1}, {"z": 0.9}))])
    (avg, _) = compared(one, one, "unlearned", "val")
    assert (avg["resampled"], avg["mean"]) == ("samples", 0)


def test_other_samples_are_not_paired(tmp_path):
    one = read_samples([cell(tmp_path / "one", 0, sides({"x": 0.1}, {"z": 0.9}))])
    other = read_samples([cell(tmp_path / "two", 0, sides({"y": 0.1}, {"z": 0.9}))])
    assert compared(one, other, "unlearned", "val") == []


def test_a_domain_with_one_side_alone_has_no_difference(tmp_path):
    one, other = (
        read_samples([cell(tmp_path / name, 0, {("a", "unlearn"): {"x": value, "y": 0.5}})])
        for name, value in (("one", 0.2), ("other", 0.8))
    )
    assert one["unlearned", "val"].keys() == {0}
    assert compared(one, other, "unlearned", "val") == []
