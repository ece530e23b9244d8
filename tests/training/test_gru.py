"""The rectified gradient against the textbook formula, written out over flat vectors."""

import pytest
import torch

from grail.training.gru import NEWEST, averaged, inner, rectified

SHAPES = {"a": (7, 5), "b": (11,), "c": (2, 3, 4)}


def draw(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(s, generator=generator) for n, s in SHAPES.items()}


def flat(gradients):
    return torch.cat([gradients[n].double().flatten() for n in SHAPES])


def opposed(seed):
    """An unlearn gradient against the direction, and one with it."""
    unlearn, direction = draw(seed), draw(seed + 100)
    sign = 1 if float(flat(unlearn) @ flat(direction)) > 0 else -1
    return {n: -sign * v for n, v in unlearn.items()}, direction


def test_inner_is_the_product_of_the_flat_vectors():
    a, b = draw(0), draw(1)
    assert inner(a, b) == pytest.approx(float(flat(a) @ flat(b)), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_what_opposes_the_direction_is_taken_out(seed):
    unlearn, direction = opposed(seed)
    u, d = flat(unlearn), flat(direction)
    assert float(u @ d) < 0
    found = flat(rectified(unlearn, direction))
    torch.testing.assert_close(found, u - (u @ d) / (d @ d) * d, rtol=1e-5, atol=1e-6)
    assert float(found @ d) >= -1e-6 * float(u.norm() * d.norm())
    assert float(found.norm()) <= float(u.norm())


def test_it_depends_on_the_direction_only_not_on_its_length():
    unlearn, direction = opposed(3)
    longer = {n: 1000 * v for n, v in direction.items()}
    torch.testing.assert_close(
        flat(rectified(unlearn, direction)), flat(rectified(unlearn, longer)), rtol=1e-5, atol=1e-6
    )


def test_straight_against_the_direction_nothing_is_left():
    direction = draw(4)
    found = rectified({n: -3 * v for n, v in direction.items()}, direction)
    assert float(flat(found).abs().max()) <= 1e-6 * float(flat(direction).abs().max())


@pytest.mark.parametrize("seed", range(3))
def test_what_does_not_oppose_it_is_left_as_it_is(seed):
    unlearn, direction = opposed(seed)
    unlearn = {n: -v for n, v in unlearn.items()}
    found = rectified(unlearn, direction)
    assert all(torch.equal(found[n], unlearn[n]) for n in SHAPES)
    nothing = {n: torch.zeros_like(v) for n, v in direction.items()}
    found = rectified(unlearn, nothing)  # no retain gradient, no direction
    assert all(torch.equal(found[n], unlearn[n]) for n in SHAPES)


def test_frozen_entries_stay_zero_and_do_not_enter():
    unlearn, direction = opposed(0)
    bits = {n: torch.rand(s, generator=torch.Generator().manual_seed(9)) < 0.5
            for n, s in SHAPES.items()}  # fmt: skip
    unlearn = {n: v.masked_fill(bits[n], 0.0) for n, v in unlearn.items()}
    direction = {n: v.masked_fill(bits[n], 0.0) for n, v in direction.items()}
    if inner(unlearn, direction) > 0:
        unlearn = {n: -v for n, v in unlearn.items()}
    found = rectified(unlearn, direction)
    assert not any(found[n][bits[n]].any() for n in SHAPES)
    free = ~flat(bits).bool()
    u, d = flat(unlearn)[free], flat(direction)[free]  # as if there were no others
    expected = u - (u @ d) / (d @ d) * d
    torch.testing.assert_close(flat(found)[free], expected, rtol=1e-5, atol=1e-6)


def test_it_changes_neither_its_inputs_nor_their_precision():
    unlearn, direction = opposed(1)
    unlearn = {n: v.bfloat16() for n, v in unlearn.items()}
    direction = {n: v.bfloat16() for n, v in direction.items()}
    before = flat(unlearn).clone(), flat(direction).clone()
    found = rectified(unlearn, direction)
    assert {v.dtype for v in found.values()} == {torch.bfloat16}
    assert torch.equal(before[0], flat(unlearn))
    assert torch.equal(before[1], flat(direction))


def test_the_first_gradient_starts_the_average_and_is_not_shared():
    first = draw(0)
    found = averaged({}, first)
    assert torch.equal(flat(found), flat(first))
    assert all(found[n].data_ptr() != first[n].data_ptr() for n in SHAPES)


def test_the_average_weighs_every_gradient_by_its_age():
    """Unrolled: the newest by w, the one before by w (1 - w), ..., the first by what is left."""
    gradients = [draw(seed) for seed in range(5)]
    found = {}
    for gradient in gradients:
        found = averaged(found, gradient)
    weights = [NEWEST * (1 - NEWEST) ** age for age in range(4)]
    weights.append(1 - sum(weights))
    expected = sum(w * flat(g) for w, g in zip(weights, gradients[::-1], strict=True))
    torch.testing.assert_close(flat(found), expected, rtol=1e-5, atol=1e-6)
    assert 0 < NEWEST < 1
