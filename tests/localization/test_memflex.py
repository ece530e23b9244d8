"""MemFlex's selection of tensors, against a loop in NumPy."""

import numpy as np
import pytest
import torch

from grail.artifacts import Scores
from grail.config.localization import Memflex
from grail.errors import InputError
from grail.localization.evidence import Evidence
from grail.localization.memflex import cosine, memflex, quantile, selected

SHAPES = {"c": (4, 3), "a": (7,), "b": (2, 2, 2), "e": (1,), "d": (5, 6)}


def no_weights():
    raise AssertionError("memflex needs no weights")


def scores_of(means, samples=1):
    zeros = {name: torch.zeros_like(value) for name, value in means.items()}
    return Scores(zeros, means, zeros, samples)


def random_sides(domains, seed=0):
    """Retain gradients between equal to the unlearn gradients and unrelated to them."""
    generator = torch.Generator().manual_seed(seed)
    sides = {}
    for domain in domains:
        unlearn, retain = {}, {}
        for name, shape in SHAPES.items():
            share, size = torch.rand(2, generator=generator)
            unlearn[name] = size * torch.randn(shape, generator=generator)
            retain[name] = share * unlearn[name] + torch.randn(shape, generator=generator) / 3
        rows = len(sides) + 1  # no two sides have as many
        sides[domain, "unlearn"] = scores_of(unlearn, rows)
        sides[domain, "retain"] = scores_of(retain, rows + 1)
    return sides


def frozen_by(sides, **rule):
    limits = Memflex(**rule)
    mask = memflex(Evidence(sides, no_weights), limits.thresholds, limits.cosine, limits.magnitude)
    whole = {name: bool(bits.all()) for name, bits in mask.frozen.items()}
    for name, bits in mask.frozen.items():  # all of a tensor or nothing
        assert tuple(bits.shape) == SHAPES.get(name, tuple(bits.shape))
        assert bits.any() == bits.all()
    assert mask.about["statistic"] == "mean"
    assert mask.about["memflex"] == Memflex(**rule).model_dump() | {
        "tensors": len(whole),
        "trained": sum(not frozen for frozen in whole.values()),
    }
    return {name for name, frozen in whole.items() if frozen}


def numpy_trained(sides, rule):
    """Domains -> names that they select: each by itself, or all in one."""
    found = {}
    domains = sorted({domain for domain, _ in sides})
    for group in [(d,) for d in domains] if rule.thresholds == "quantile" else [tuple(domains)]:
        numbers = {}
        for name in SHAPES:
            # every row's gradient, one after the other: what scoring the merged data would average
            u, r = (
                np.concatenate(
                    [
                        np.tile(sides[domain, side].mean[name].numpy().ravel(), (rows, 1))
                        for domain in group
                        for rows in [sides[domain, side].samples]
                    ]
                )
                .astype(np.float64)
                .mean(0)
                for side in ("unlearn", "retain")
            )
            cos = (u * r).sum() / np.sqrt((u * u).sum() * (r * r).sum())
            numbers[name] = (cos, np.abs(u).mean())
        below, above = rule.cosine, rule.magnitude
        if rule.thresholds == "quantile":
            below, above = (
                np.quantile([pair[i] for pair in numbers.values()], q)
                for i, q in enumerate((below, above))
            )
        found[group] = {n for n, (cos, size) in numbers.items() if cos < below and size > above}
    return found


@pytest.mark.parametrize("domains", [("x",), ("x", "y"), ("x", "y", "z")])
@pytest.mark.parametrize(
    "rule",
    [
        {"thresholds": "absolute", "cosine": 0.9, "magnitude": 0.1},
        {"thresholds": "absolute", "cosine": 0.6, "magnitude": 0.0},
        {"thresholds": "quantile", "cosine": 0.85, "magnitude": 0.15},
        {"thresholds": "quantile", "cosine": 0.9, "magnitude": 0.4},
    ],
)
def test_what_is_trained_equals_numpy(domains, rule):
    sides = random_sides(domains, seed=0)
    want = set().union(*numpy_trained(sides, Memflex(**rule)).values())
    assert want
    assert frozen_by(sides, **rule) == SHAPES.keys() - want


def test_domains_are_united():
    sides = random_sides(("x", "y"), seed=0)
    rule = {"thresholds": "quantile", "cosine": 0.6, "magnitude": 0.3}
    x, y = (
        SHAPES.keys() - frozen_by({k: v for k, v in sides.items() if k[0] == domain}, **rule)
        for domain in ("x", "y")
    )
    assert x - y
    assert y - x
    assert SHAPES.keys() - frozen_by(sides, **rule) == x | y


def test_published_limits_are_for_the_rows_of_all_domains_together():
    """Two domains in which the unlearn gradients cancel: alone each is above the limit."""
    rule = {"thresholds": "absolute", "cosine": 0.9, "magnitude": 0.5}
    ones, zeros = {"a": torch.ones(7), "d": torch.ones(5, 6)}, {"a": torch.zeros(7)}
    zeros["d"] = -torch.ones(5, 6)
    against = {"a": -torch.ones(7), "d": torch.ones(5, 6)}
    sides = {("x", "unlearn"): scores_of(ones, 2), ("x", "retain"): scores_of(zeros, 2)}
    assert frozen_by(sides, **rule) == set()
    sides |= {("y", "unlearn"): scores_of(against, 2), ("y", "retain"): scores_of(zeros, 5)}
    assert frozen_by(sides, **rule) == {"a"}
    sides["y", "unlearn"] = scores_of(against, 20)  # the mean over rows, not over domains
    assert frozen_by(sides, **rule) == set()


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


COSINES, SIZES = row(-1, 0, 0.5, 0.5, 1), row(3, 1, 2, 2, 0)


@pytest.mark.parametrize(
    ("rule", "want"),
    [
        # a tensor at a limit is not selected: neither one of two at 0.5, nor the one of size 1
        (("absolute", 0.5, 0.5), [1, 1, 0, 0, 0]),
        (("absolute", 0.6, 1.0), [1, 0, 1, 1, 0]),
        (("absolute", 0.6, 2.0), [1, 0, 0, 0, 0]),
        (("quantile", 0.5, 0.25), [1, 0, 0, 0, 0]),  # limits 0.5 and 1
        (("quantile", 0.8, 0.2), [1, 1, 1, 1, 0]),  # limits 0.6 and 0.8
        (("quantile", 0.75, 0.6), [1, 0, 0, 0, 0]),  # limits 0.5 and 2
        # quantile 1 of cosines and quantile 0 of magnitudes are no limits
        (("quantile", 1.0, 0.25), [1, 0, 1, 1, 0]),
        (("quantile", 0.75, 0.0), [1, 1, 0, 0, 0]),
        (("quantile", 1.0, 0.0), [1, 1, 1, 1, 1]),
    ],
)
def test_limits_are_strict(rule, want):
    assert selected(COSINES, SIZES, *rule).int().tolist() == want


def test_quantiles_without_a_limit_train_everything():
    sides = random_sides(("x",))
    sides["x", "unlearn"].mean["c"].zero_()
    assert frozen_by(sides, cosine=1.0, magnitude=0.0) == set()


@pytest.mark.parametrize("n", [1, 2, 5, 21, 210])
def test_the_quantile_is_that_of_numpy(n):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n)).double()
    for q in (0.0, 1e-3, 0.2, 0.35, 0.5, 0.77, 0.999, 1.0):
        assert quantile(values, q) == pytest.approx(np.quantile(values.numpy(), q), rel=1e-12)


def test_a_quantile_at_a_value_is_that_value():
    """0.55 * 20 is 11.000000000000002 in floating point; the next value must not leak in."""
    for step in range(1, 20):
        assert quantile(torch.arange(21.0), step / 20) == step


def test_cosines_by_hand():
    a = torch.tensor([[3.0, 0], [4, 0]])
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(a, torch.tensor([[1.0, 5], [0, 0]])) == pytest.approx(3 / 5 / 26**0.5)
    assert cosine(a, torch.zeros(2, 2)) == 0
    # in float32 the squares would be lost
    assert cosine(1e-30 * a, 1e-30 * a) == pytest.approx(1)


@pytest.mark.parametrize("thresholds", ["absolute", "quantile"])
def test_nothing_to_train_is_refused_with_the_numbers_seen(thresholds):
    parts = {"p": torch.tensor([0.5, 0.0]), "q": torch.tensor([0.0, 0.002])}
    other = {"p": torch.tensor([0.3, 0.4]), "q": torch.tensor([0.0, 1.0])}
    sides = {("x", "unlearn"): scores_of(parts), ("x", "retain"): scores_of(other)}
    # cosines 0.6 and 1, magnitudes 0.25 and 0.001
    limits = {"absolute": (0.5, 0.3), "quantile": (0.5, 0.5)}[thresholds]
    if thresholds == "quantile":  # the one of low cosine must not be the larger
        sides["x", "unlearn"].mean["q"].mul_(1000)
    with pytest.raises(InputError) as error:
        frozen_by(sides, thresholds=thresholds, cosine=limits[0], magnitude=limits[1])
    text = str(error.value)
    unit = "quantile " if thresholds == "quantile" else ""
    assert f"below {unit}{limits[0]:g} and a magnitude above {unit}{limits[1]:g}" in text
    sizes = {"absolute": "0.001 to 0.25", "quantile": "0.25 to 1"}[thresholds]
    assert f"Seen: cosines from 0.6 to 1, magnitudes from {sizes}." in text
    assert "Raise localization.memflex.cosine or lower localization.memflex.magnitude" in text
    assert ("thresholds: quantile" in text) == (thresholds == "absolute")


def test_one_tensor_alone_is_trained_only_without_limits():
    """Strictly below the quantile of itself is nothing."""
    one = {
        ("x", side): scores_of({"p": torch.tensor([1.0, 2.0])}) for side in ("unlearn", "retain")
    }
    with pytest.raises(InputError, match="selects no tensor"):
        frozen_by(one)
    assert frozen_by(one, cosine=1.0, magnitude=0.0) == set()
