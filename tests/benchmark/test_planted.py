"""The planted bed: only planted entries moved, the truth is found by whom it is told, chance is."""

from functools import cache

import planted
import pytest
import torch
from planted import RANKINGS, first, known, make_bed, measure


@cache
def bed():
    return make_bed(0, steps=60)


def test_a_bed_is_made_by_its_seed():
    one, same, other = (dict(make_bed(s, steps=2).model.named_parameters()) for s in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_share_is_planted_in_each_weight_and_the_facts_are_known():
    shares = [bits.float().mean().item() for bits in bed().planted.values()]
    assert shares == pytest.approx([planted.SHARE] * 14, abs=1e-3)
    assert known(bed(), bed().model, "unlearn") > 60


def test_planting_is_proved(monkeypatch):
    """With nothing to learn but what is planted, the others are bit for bit those of before."""
    seen = []
    learn = planted.learn

    def watched(model, tokenizer, rows, optimizer, steps):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        learn(model, tokenizer, rows, optimizer, steps)
        seen.append({n: before[n] != p.detach() for n, p in model.named_parameters()})

    monkeypatch.setattr(planted, "learn", watched)
    made = make_bed(1, steps=5)
    moved = seen[1]
    for name, changed in moved.items():
        assert not (changed & ~made.planted.get(name, torch.zeros_like(changed))).any()
    assert any(changed.any() for changed in moved.values())


def test_the_truth_has_precision_one_and_random_its_share(monkeypatch):
    monkeypatch.setattr(planted, "removed", lambda bed, free: {})
    truth = measure(bed(), RANKINGS["the truth"](bed()))
    assert truth == {"precision": 100.0, "recall_4": 100.0}
    chance = measure(bed(), RANKINGS["random"](bed()))
    count = sum(int(bits.sum()) for bits in bed().planted.values())
    error = 100 * (planted.SHARE / count) ** 0.5
    assert abs(chance["precision"] - 100 * planted.SHARE) < 4 * error
    assert abs(chance["recall_4"] - 400 * planted.SHARE) < 8 * error


@pytest.mark.parametrize("name", RANKINGS)
def test_each_ranking_orders_every_entry(name):
    ranking = RANKINGS[name](bed())
    for weight, bits in bed().planted.items():
        assert ranking[weight].shape == bits.shape
        assert torch.isfinite(ranking[weight]).all()


def test_the_first_of_each_block():
    ranking = {"layers.0.a": torch.tensor([5.0, 1.0]), "layers.0.b": torch.tensor([4.0, 3.0])}
    ranking["layers.1.a"] = torch.tensor([0.1, 0.2])
    marks = first(ranking, {"layers.0.a": 1, "layers.0.b": 1, "layers.1.a": 1}, 1)
    assert [marks[name].tolist() for name in ranking] == [[1, 0], [1, 0], [0, 1]]


def test_removal_moves_only_what_is_free_and_leaves_the_bed():
    before = {n: p.detach().clone() for n, p in bed().model.named_parameters()}
    found = planted.removed(bed(), bed().planted, steps=8, again=1)
    assert found["left"] < known(bed(), bed().model, "unlearn")
    assert all(torch.equal(before[n], p) for n, p in bed().model.named_parameters())
