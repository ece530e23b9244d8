"""What the attacker of each relearning has, and descent that leaves no trace."""

import math

import pytest
import torch

from grail.audit.attacks.attackers import Attacker
from grail.audit.attacks.relearn import batches, descend, few, other, unrelated
from grail.errors import DivergenceError
from grail.model.forward import trainable
from grail.training.descent import DescentTask


def copy_of(model):
    return {name: p.detach().clone() for name, p in trainable(model).items()}


def run(model, rows, points, seed=0, rate=0.05, **how):
    """Return (steps, the weights after them) at every point."""
    steps, attacker = batches(rows, 2, points[-1], seed), Attacker(rate, **how)
    return [(step, copy_of(model)) for step in descend(model, steps, attacker, points, seed, 0)]


@pytest.mark.parametrize("lora", [True, False])
def test_the_model_is_as_before_to_the_bit(tiny_model, tiny_rows, lora):
    model = tiny_model(lora=lora).eval()
    before, places = copy_of(model), [p.data_ptr() for p in model.parameters()]
    (first, one), (second, two) = run(model, tiny_rows(5), (1, 3))
    assert (first, second) == (1, 3)
    for name, value in copy_of(model).items():
        assert torch.equal(value, before[name])
    assert places == [p.data_ptr() for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert not model.training
    moved = [n for n in before if not torch.equal(before[n], one[n])]
    further = [n for n in before if not torch.equal(one[n], two[n])]
    assert moved
    assert further


def test_closed_on_the_way_or_diverged_it_leaves_no_trace_either(tiny_model, tiny_rows):
    model, rows = tiny_model().eval(), tiny_rows(5)
    before = copy_of(model)
    points = descend(model, batches(rows, 2, 3, 0), Attacker(0.05), (1, 3), 0, pad=0)
    next(points)
    assert any(not torch.equal(value, before[n]) for n, value in copy_of(model).items())
    points.close()
    with pytest.raises(DivergenceError, match="gradient norm is nan at step"):
        run(model, rows, (9,), rate=1e30)
    assert all(torch.equal(value, before[n]) for n, value in copy_of(model).items())
    assert all(p.grad is None for p in model.parameters())


def test_a_step_is_adamw_on_the_clipped_gradient_of_the_mean_nll(tiny_model, tiny_rows):
    """The first step, by the formulas of AdamW, with the loss of the vanilla stage."""
    model, rows = tiny_model(lora=False), tiny_rows(3)
    ((_, after),) = run(model, rows, (1,), rate=0.01)
    ((batch,),) = [batches(rows, 2, 1, 0)]
    task = DescentTask(model, tuple(rows), 0)
    task.run(batch, batch).loss.backward()
    gradients = {name: p.grad for name, p in trainable(model).items()}
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
    for name, p in trainable(model).items():
        gradient = gradients[name] * min(1.0, 1.0 / (norm + 1e-6))
        expected = p.detach() - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-6)


def test_a_step_of_sgd_follows_the_gradient_as_far_as_a_first_one_of_adamw(tiny_model, tiny_rows):
    model, rows = tiny_model(lora=False), tiny_rows(3)
    before = copy_of(model)
    ((_, after),) = run(model, rows, (1,), rate=0.01, optimizer="sgd")
    ((batch,),) = [batches(rows, 2, 1, 0)]
    DescentTask(model, tuple(rows), 0).run(batch, batch).loss.backward()
    gradients = [p.grad.flatten() for p in trainable(model).values()]
    moves = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert float(moves.norm()) == pytest.approx(0.01 * math.sqrt(moves.numel()), rel=1e-4)
    cosine = torch.cosine_similarity(moves, -torch.cat(gradients), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


def test_a_point_on_the_way_is_the_end_of_a_shorter_attack(tiny_model, tiny_rows):
    model = tiny_model()
    rows = tiny_rows(5)
    long, short = run(model, rows, (2, 4)), run(model, rows, (2,))
    again = run(model, rows, (1, 2, 4))
    assert all(torch.equal(long[0][1][n], short[0][1][n]) for n in long[0][1])
    assert all(torch.equal(long[1][1][n], again[2][1][n]) for n in long[0][1])


def test_another_seed_is_another_attack(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(5)
    one, other = run(model, rows, (1,), seed=0), run(model, rows, (1,), seed=1)
    assert any(not torch.equal(one[0][1][n], other[0][1][n]) for n in one[0][1])


@pytest.mark.parametrize(("steps", "size"), [(1, 4), (3, 2), (7, 2), (5, 9)])
def test_exactly_so_many_steps_and_every_row_before_any_again(tiny_rows, steps, size):
    plan = batches(tiny_rows(5), size, steps, 0)
    assert len(plan) == steps
    seen = [row.key for step in plan for row in step]
    for first in range(0, len(seen) - 4, 5):
        assert len(set(seen[first : first + 5])) == 5


@pytest.fixture
def context(audit_context):
    def make(train=20, val=3, general=2, share=0.1, max_rows=None):
        counts = {
            (domain, side, part): count
            for domain in ("a", "b")
            for side in ("unlearn", "retain")
            for part, count in (("train", train), ("val", val))
        }
        counts["general", "general", "train"] = general
        return audit_context(counts, relearn={"share": share}, max_rows=max_rows)

    return make


def places(rows):
    return {(row.domain, row.side, row.part) for row in rows}


@pytest.mark.parametrize(("train", "share", "each"), [(20, 0.1, 2), (3, 0.1, 1), (20, 0.5, 10)])
@pytest.mark.parametrize("max_rows", [None, 2])
def test_few_are_a_share_of_each_domain_and_are_not_asked(context, train, share, each, max_rows):
    made = context(train=train, share=share, max_rows=max_rows)
    taught, asked = few(made)
    assert len(taught) == 2 * each
    assert places(taught) == {("a", "unlearn", "train"), ("b", "unlearn", "train")}
    assert not {row.key for row in taught} & {row.key for row in asked}
    if max_rows is None:
        assert len(taught) + len(asked) == 2 * train


def test_other_are_the_val_rows_and_unrelated_is_general(context):
    taught, asked = other(context())
    assert places(taught) == {("a", "unlearn", "val"), ("b", "unlearn", "val")}
    assert places(asked) == {("a", "unlearn", "train"), ("b", "unlearn", "train")}
    taught, again = unrelated(context())
    assert places(taught) == {("general", "general", "train")}
    assert again == asked
