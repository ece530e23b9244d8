"""Distances between models' outputs: zero to itself, recomputed, and to other seeds' oracles."""

import shutil

import oracles
import pytest
import torch
from opened import opened


@pytest.fixture(scope="module")
def runs(finished_run, tmp_path_factory):
    """Two seeds: the oracle of the second one is the finished run's vanilla model."""
    folder = tmp_path_factory.mktemp("oracles")
    for seed in ("0", "1"):
        for method in ("exact", "removed"):
            shutil.copytree(finished_run, folder / seed / method)
    shutil.rmtree(folder / "1" / "exact" / "unlearned")
    shutil.copytree(finished_run / "vanilla", folder / "1" / "exact" / "unlearned")
    return folder


def test_each_model_is_compared_with_the_oracles_of_other_seeds(runs):
    found = oracles.compared(runs, "removed")
    far = {(one["method"], one["seed"]): one["summary"]["unlearned"]["train"] for one in found}
    assert len(far) == 6
    assert far["vanilla", 0]["unlearn train"] == 0  # seed 1's "oracle" is this very model
    assert far["another oracle", 0] == pytest.approx(far["another oracle", 1])  # symmetric
    assert far["removed", 0] == far["another oracle", 0]  # the same weights
    assert far["vanilla", 1] == pytest.approx(far["removed", 0])


def test_total_variation_is_half_the_sum_of_differences(runs):
    context = opened(runs / "0" / "removed")
    one, other = (
        oracles.outputs(context, runs / "0" / "removed" / n) for n in ("vanilla", "unlearned")
    )
    rows = [row for row in context.rows if (row.side, row.part) == ("unlearn", "train")]
    (p, lengths), (q, _) = one["unlearn train"], other["unlearn train"]
    assert int(lengths.sum()) == sum(len(row.answer) for row in rows) == len(p)
    each = [(a.double() - b.double()).abs().sum().item() / 2 for a, b in zip(p, q, strict=True)]
    means, start = [], 0
    for n in lengths.tolist():
        means.append(sum(each[start : start + n]) / n)
        start += n
    assert oracles.distances(one, other)["unlearn train"] == pytest.approx(
        100 * sum(means) / len(means), abs=1e-3
    )
    assert torch.allclose(p.float().sum(-1), torch.ones(len(p)), atol=1e-2)


def test_one_seed_has_no_other(runs, tmp_path):
    shutil.copytree(runs / "0", tmp_path / "0")
    with pytest.raises(SystemExit, match="two seeds are needed, not 1"):
        oracles.compared(tmp_path, "removed")
