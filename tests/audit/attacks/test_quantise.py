"""Rounding against a plain loop over entries, and its identities."""

import pytest
import torch

from grail.audit.attacks.quantise import GRIDS, quantised


def draw(outputs, inputs, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def loop(weight, bits, group):
    most = 2 ** (bits - 1) - 1
    rounded = weight.clone()
    for o in range(weight.shape[0]):
        size = group or weight.shape[1]
        for first in range(0, weight.shape[1], size):
            piece = weight[o, first : first + size]
            scale = max(abs(float(entry)) for entry in piece) / most
            for i, entry in enumerate(piece):
                steps = max(-most, min(most, round(float(entry) / scale)))
                rounded[o, first + i] = steps * scale
    return rounded


@pytest.mark.parametrize(("bits", "group"), [*GRIDS.values(), (3, 4), (2, 1)])
@pytest.mark.parametrize("inputs", [5, 64, 150])
def test_equals_the_plain_loop(bits, group, inputs):
    weight = draw(7, inputs)
    torch.testing.assert_close(quantised(weight, bits, group), loop(weight, bits, group))


@pytest.mark.parametrize(("bits", "group"), GRIDS.values())
def test_what_lies_on_the_grid_stays(bits, group):
    most = 2 ** (bits - 1) - 1
    steps = torch.randint(-most, most + 1, (6, 130), generator=torch.Generator().manual_seed(1))
    steps[:, ::64] = most  # every group reaches the end of its grid
    weight = steps * 2.0**-9
    assert torch.equal(quantised(weight, bits, group), weight)
    rounded = quantised(draw(6, 130), bits, group)
    torch.testing.assert_close(quantised(rounded, bits, group), rounded)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_int8_moves_nothing_by_more_than_half_a_step(size):
    weight = draw(9, 200) * size
    moved = (quantised(weight, 8) - weight).abs()
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert bool((moved <= step * 0.5 * (1 + 1e-5)).all())
    assert bool((moved > 0).any())


def test_a_channel_knows_nothing_of_the_others():
    weight = draw(4, 70)
    louder = weight.clone()
    louder[2] *= 100
    others = [0, 1, 3]
    assert torch.equal(quantised(louder, 8)[others], quantised(weight, 8)[others])
    torch.testing.assert_close(quantised(louder, 8)[2], 100 * quantised(weight, 8)[2])


def test_int4_shares_a_scale_among_64_inputs_and_int8_among_all():
    weight = draw(4, 128)
    louder = torch.cat([100 * weight[:, :64], weight[:, 64:]], dim=1)
    quiet = {name: quantised(louder, *grid)[:, 64:] for name, grid in GRIDS.items()}
    alone = {name: quantised(weight[:, 64:], *grid) for name, grid in GRIDS.items()}
    assert torch.equal(quiet["int4"], alone["int4"])
    assert not torch.allclose(quiet["int8"], alone["int8"])
    assert not torch.equal(quantised(louder, *GRIDS["int4"])[:, 63:65], louder[:, 63:65])


def test_zeros_stay_zeros():
    weight = draw(3, 70)
    weight[1] = 0
    assert torch.equal(quantised(weight, 4, 64)[1], weight[1])
    assert bool(quantised(weight, 4, 64).isfinite().all())
