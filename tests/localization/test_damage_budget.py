"""The damage budget: exact, monotone, and equal to an independent selection in Python."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from grail.artifacts import Scores
from grail.localization.damage_budget import damage_budget, free_entries
from grail.localization.evidence import Evidence

SHAPES = {"z": (3, 4), "layers.0.a": (7,), "m": (2, 2, 2), "layers.1.b": (5,)}
BUDGETS = (1e-9, 0.05, 0.2, 0.5, 0.75, 0.99, 1.0)


def no_weights():
    raise AssertionError("damage_budget needs no weights")


def random_sides(n, seed=0, distinct=9):
    """Small whole numbers: zeros and ties everywhere; sides at scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    sides = {}
    for pair in ((f"d{i}", side) for i in range(n) for side in ("unlearn", "retain")):
        scale = 2.0 ** int(torch.randint(-12, 12, (), generator=generator))
        values = {
            name: scale * torch.randint(0, distinct, shape, generator=generator).float()
            for name, shape in SHAPES.items()
        }
        sides[pair] = Scores(values, values, values, samples=1)
    return sides


def localized(sides, budget):
    return damage_budget(Evidence(sides, no_weights), budget)


def flat(values):
    return np.concatenate([np.asarray(values[name]).ravel() for name in sorted(values)])


def numpy_sides(sides):
    """Damage and benefit of every entry, in flat order."""
    shares = {pair: flat(s.mean_abs).astype(np.float64) for pair, s in sides.items()}
    shares = {pair: s / s.sum() for pair, s in shares.items()}
    of = {x: [shares[p] for p in sorted(shares) if p[1] == x] for x in ("unlearn", "retain")}
    return np.max(of["retain"], axis=0), np.mean(of["unlearn"], axis=0)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_budget_is_used_up_to_one_entry(n, budget):
    sides = random_sides(n, seed=n)
    mask = localized(sides, budget)
    damage, benefit = numpy_sides(sides)
    frozen = flat(mask.frozen)
    assert {name: tuple(b.shape) for name, b in mask.frozen.items()} == SHAPES
    assert damage[~frozen].sum() <= budget * damage.sum() * (1 + 1e-12)
    assert not frozen[damage == 0].any()
    limit = mask.about["damage_budget"]["lambda"]
    assert mask.about["damage_budget"]["budget"] == budget
    if not frozen.any():
        assert limit is None
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(damage > 0, damage / benefit, 0)
    following = ratio[frozen].min()  # the next to be freed: in flat order the first of these
    first = damage[frozen & (ratio == following)][0]
    assert damage[~frozen].sum() + first > budget * damage.sum() * (1 - 1e-12)
    # a threshold on the ratio, and lambda is the largest that leaves these entries free
    limit = math.inf if limit is None else limit
    assert ratio[~frozen].max(initial=0) == pytest.approx(limit, rel=1e-12)
    assert following >= limit * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)])
def test_one_domain_equals_exact_arithmetic(seed, budget):
    """Powers of two as sums, so that no share is rounded and ties are ties."""
    generator = np.random.default_rng(seed)
    size = 24
    r, u = (generator.integers(0, 6, size) for _ in range(2))
    r[-1], u[-1] = 128 - r[:-1].sum(), 128 - u[:-1].sum()

    def key(j):
        if r[j] == 0:
            return Fraction(0), j
        return (Fraction(int(r[j]), int(u[j])) if u[j] else Fraction(10**9)), j

    spent, want = 0, np.ones(size, dtype=bool)
    for j in sorted(range(size), key=key):
        spent += int(r[j])
        if spent > budget * 128:
            break
        want[j] = False
    sides = {
        ("d", side): Scores({"p": v}, {"p": v}, {"p": v}, samples=1)
        for side, v in (("unlearn", torch.tensor(u).float()), ("retain", torch.tensor(r).float()))
    }
    assert np.array_equal(localized(sides, float(budget)).frozen["p"].numpy(), want)


def test_more_budget_frees_more_and_never_freezes_again():
    sides = random_sides(3, seed=4)
    masks = [flat(localized(sides, budget).frozen) for budget in BUDGETS]
    for tighter, looser in pairwise(masks):
        assert not (looser & ~tighter).any()
    counts = [int(mask.sum()) for mask in masks]
    assert counts[0] > counts[3] > counts[-1] == 0


def test_the_scale_of_a_side_does_not_matter():
    sides = random_sides(2, seed=5)
    scaled = {
        pair: Scores({n: v * 2.0 ** (7 * i) for n, v in s.mean_abs.items()}, s.mean, s.mean_sq, 1)
        for i, (pair, s) in enumerate(sides.items())
    }
    one, other = (localized(x, 0.4).frozen for x in (sides, scaled))
    assert all(torch.equal(one[name], other[name]) for name in SHAPES)


def test_a_side_without_scores_counts_for_nothing():
    sides = random_sides(1, seed=6)
    nothing = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    zeros = Scores(nothing, nothing, nothing, samples=1)
    both = sides | {("other", side): zeros for side in ("unlearn", "retain")}
    assert flat(localized(both, 0.4).frozen).tolist() == flat(localized(sides, 0.4).frozen).tolist()
    unharmed = sides | {("d0", "retain"): zeros}
    assert not flat(localized(unharmed, 0.1).frozen).any()
    useless = sides | {("d0", "unlearn"): zeros}
    about = localized(useless, 0.4).about["damage_budget"]
    assert about == {"budget": 0.4, "lambda": None}  # infinite: the ratio of all that does damage


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("budget", "free", "limit"),
    [
        (0.05, [1, 0, 0, 0, 1, 0], 0.0),
        (0.1, [1, 1, 0, 0, 1, 0], 0.5),
        (0.3, [1, 1, 1, 0, 1, 0], 1.0),
        (0.49, [1, 1, 1, 0, 1, 0], 1.0),  # of two at ratio 1 the first in flat order
        (0.5, [1, 1, 1, 1, 1, 0], 1.0),
        (0.99, [1, 1, 1, 1, 1, 0], 1.0),
        (1.0, [1, 1, 1, 1, 1, 1], math.inf),
    ],
)
def test_an_example_by_hand(budget, free, limit):
    """Free at no damage (benefit or not); only damage comes last."""
    damage = row(0, 1, 2, 2, 0, 5)
    benefit = row(0, 2, 2, 2, 3, 0)
    ratio = torch.where(damage > 0, damage / benefit, 0.0)
    whole = [(damage, ratio)]
    cut = list(zip(damage.split([2, 1, 3]), ratio.split([2, 1, 3]), strict=True))
    for parts in (whole, cut):
        marks, found = free_entries(lambda parts=parts: parts, budget)
        assert torch.cat(marks).int().tolist() == free
        assert found == limit


@pytest.mark.parametrize("budget", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_many_entries_equal_one_stable_sort(budget):
    """Ratios over 60 orders of magnitude, and many entries in the bin where the budget runs out."""
    generator = torch.Generator().manual_seed(2)
    damage, benefit = (torch.rand(20_000, generator=generator).double() for _ in range(2))
    damage[:9_000] *= 10.0 ** torch.randint(-30, 30, (9_000,), generator=generator).double()
    damage[5_000:12_000].copy_(damage[5_000:12_000].mul(50).round())
    benefit[5_000:12_000].copy_(benefit[5_000:12_000].mul(3).round())
    ratio = torch.where(damage > 0, damage / benefit, 0.0)
    order = ratio.argsort(stable=True)
    spent = damage[order].cumsum(0)
    count = int((spent <= budget * spent[-1]).sum())
    want = torch.zeros(20_000, dtype=torch.bool)
    want[order[:count]] = True
    parts = list(zip(damage.split(777), ratio.split(777), strict=True))
    marks, limit = free_entries(lambda: parts, budget)
    assert torch.equal(torch.cat(marks), want)
    assert limit == float(ratio[order[count - 1]])


def test_layers_get_what_they_deserve():
    """One number decides every layer's share: the one that only unlearning uses stays free."""
    shared, own = torch.ones(10), torch.full((10,), 1e-3)
    unlearn = {"layers.0.w": shared, "layers.1.w": shared}
    retain = {"layers.0.w": own, "layers.1.w": shared}
    sides = {
        ("d", "unlearn"): Scores(unlearn, unlearn, unlearn, samples=1),
        ("d", "retain"): Scores(retain, retain, retain, samples=1),
    }
    frozen = localized(sides, 0.35).frozen
    assert int(frozen["layers.0.w"].sum()) == 0
    assert frozen["layers.1.w"].tolist() == [False] * 3 + [True] * 7
