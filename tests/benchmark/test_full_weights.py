"""All weights at equal harm: the damped gradient, the distance, and how far a direction is gone."""

import full_weights
import pytest
import torch
from full_weights import damped, distance_from, follow, repselect

from grail.model.weights import copy_weights, put_weights


@pytest.fixture
def model(tiny_model):
    return tiny_model(lora=False)


@pytest.fixture
def rows(tiny_rows):
    return tiny_rows(6)


def nlls(model, rows):
    """The NLL of each answer token and the whole distribution there, row by row without padding."""
    found = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.ids])
            found.append(model(input_ids=ids).logits[0, row.start - 1 : -1].log_softmax(-1))
    return torch.cat(found)


def test_damping_levels_the_largest_singular_values(monkeypatch):
    monkeypatch.setattr(full_weights, "QUEUE", 5)
    random = torch.randn(12, 9, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(random, full_matrices=False)
    falling = 0.5 ** torch.arange(9.0)
    level = torch.cat([falling[4].expand(5), falling[5:]])
    found = damped((u * falling) @ v)
    torch.testing.assert_close(found, (u * level) @ v, rtol=1e-3, atol=1e-4)


def test_the_distance_is_the_kl_from_the_model_as_it_was(model, rows):
    distance, before = distance_from(model, rows, 0), nlls(model, rows)
    assert distance() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.3)
    after = nlls(model, rows)
    wanted = (before.exp() * (before - after)).sum(-1).mean().item()
    assert wanted > 1e-4
    assert distance() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("share", [0.01, 100.0])
def test_a_direction_is_followed_up_to_the_budget(model, rows, share):
    """The same point is found, however long the direction is that is given."""
    vanilla, distance = copy_weights(model), distance_from(model, rows, 0)
    generator = torch.Generator().manual_seed(0)
    way = {n: 0.1 * torch.randn(w.shape, generator=generator) for n, w in vanilla.items()}
    put_weights(model, {n: w + 0.5 * way[n] for n, w in vanilla.items()})
    budget = distance()
    longer = {n: share * w for n, w in way.items()}
    found = follow(model, vanilla, longer, distance, budget)
    assert found * share == pytest.approx(0.5, rel=0.04)
    assert 0.9 * budget < distance() <= budget * (1 + 1e-6)


@pytest.mark.parametrize("far", [0.0, float("nan")])
def test_a_direction_that_does_not_reach_the_budget_is_refused(model, far):
    vanilla = copy_weights(model)
    with pytest.raises(ValueError, match=r"up to 1024 is 0\.1 nats away"):
        follow(model, vanilla, {n: w * 0 for n, w in vanilla.items()}, lambda: far, 0.1)


def test_repselect_moves_matrices_of_mlps_alone_and_leaves_the_model_as_it_was(
    model, rows, monkeypatch
):
    monkeypatch.setattr(full_weights, "QUEUE", 4)
    before = copy_weights(model)
    way = repselect(model, rows, 0, 0)
    assert {n for n, w in way.items() if w.any()} == {n for n in way if ".mlp." in n}
    assert sum(w.square().sum().item() for w in way.values()) == pytest.approx(1.0)
    assert all(torch.equal(before[n], w) for n, w in copy_weights(model).items())
    known = nlls(model, rows).gather(-1, answers(rows)).mean()
    put_weights(model, {n: w + 0.5 * way[n] for n, w in before.items()})
    assert nlls(model, rows).gather(-1, answers(rows)).mean() < known


def answers(rows):
    return torch.tensor([[token] for row in rows for token in row.ids[row.start :]])
