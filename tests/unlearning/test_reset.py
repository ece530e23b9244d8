"""The weights after a reset: survivors to the bit, the others back where they were."""

import pytest
import torch

from grail.unlearning.reset import NOISE, reset_weights

SHAPES = {"matrix": (64, 48), "norm": (32,)}


def drawn(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(shape, generator=generator).to(dtype) for n, shape in SHAPES.items()}


def marks(value):
    return {name: torch.full(shape, value) for name, shape in SHAPES.items()}


SOME = {name: value > 0 for name, value in drawn(7).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("known", [True, False])
def test_where_everything_survives_nothing_changes(dtype, known):
    vanilla = drawn(0, dtype)
    found = reset_weights(vanilla, drawn(1) if known else None, marks(True), 1.0, 0)
    assert all(torch.equal(found[name], vanilla[name]) for name in SHAPES)


def test_where_nothing_survives_the_weights_are_those_before_to_the_bit():
    before = drawn(1)
    found = reset_weights(drawn(0), before, marks(False), 1.0, 0)
    assert all(torch.equal(found[name], before[name]) for name in SHAPES)


@pytest.mark.parametrize("amount", [0.25, 0.5, 1.0])
def test_survivors_keep_their_bits_and_the_others_move_by_the_amount(amount):
    vanilla, before = drawn(0), drawn(1)
    found = reset_weights(vanilla, before, SOME, amount, 0)
    for name, bits in SOME.items():
        assert torch.equal(found[name][bits], vanilla[name][bits])
        way = vanilla[name] + amount * (before[name] - vanilla[name])
        torch.testing.assert_close(found[name][~bits], way[~bits])


def test_without_a_model_before_matrices_shrink_and_get_noise_and_norms_stay():
    vanilla, amount = drawn(0), 0.6
    found = reset_weights(vanilla, None, marks(False), amount, seed=3)
    assert torch.equal(found["norm"], vanilla["norm"])
    noise = (found["matrix"] - (1 - amount) * vanilla["matrix"]) / amount
    limit = NOISE * (6 / sum(SHAPES["matrix"])) ** 0.5  # Xavier-uniform
    assert noise.abs().max() <= limit * (1 + 1e-4)
    assert noise.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    again = reset_weights(vanilla, None, marks(False), amount, seed=3)
    other = reset_weights(vanilla, None, marks(False), amount, seed=4)
    assert torch.equal(found["matrix"], again["matrix"])
    assert not torch.equal(found["matrix"], other["matrix"])
