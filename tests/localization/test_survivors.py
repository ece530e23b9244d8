"""Which entries survive a reset, against a selection written out here."""

import pytest
import torch

from grail.artifacts import Mask, Scores
from grail.config.unlearning import Reset
from grail.localization.evidence import Evidence
from grail.localization.survivors import survivors

SHAPES = {"a": (3, 4), "b": (7,), "c": (2, 2, 2)}
KEEPS = ("damage", "magnitude", "random")


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}


WEIGHTS = {name: value - 0.5 for name, value in drawn(99).items()}


def evidence(seed=0):
    sides = {}
    for number, domain in enumerate(("d0", "d1")):
        for offset, side in enumerate(("unlearn", "retain")):
            values = drawn(10 * seed + 2 * number + offset)
            sides[domain, side] = Scores(values, values, values, samples=1)
    return Evidence(sides, lambda: WEIGHTS, seed)


def frozen(seed=5, limit=0.2):
    return Mask({name: value < limit for name, value in drawn(seed).items()})


NOTHING = Mask({name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()})


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_of_every_tensor_one_share_is_reset(keep, share):
    kept = survivors(evidence(), NOTHING, Reset(share=share, keep=keep))
    for name, bits in kept.frozen.items():
        assert bits.shape == SHAPES[name]
        assert bits.dtype == torch.bool
        assert int(bits.sum()) == round((1 - share) * bits.numel())


def test_damage_keeps_the_entries_with_the_most_damage_per_benefit():
    found, share = evidence(), 0.6
    kept = survivors(found, NOTHING, Reset(share=share, keep="damage")).frozen
    totals = {
        pair: sum(float(value.double().sum()) for value in side.mean_abs.values())
        for pair, side in found.sides.items()
    }
    for name, bits in kept.items():
        ratios = []
        for place in range(bits.numel()):
            part = {
                pair: float(side.mean_abs[name].flatten()[place]) / totals[pair]
                for pair, side in found.sides.items()
            }
            damage = max(part[d, "retain"] for d in ("d0", "d1"))
            ratios.append(damage / ((part["d0", "unlearn"] + part["d1", "unlearn"]) / 2))
        inside = [r for r, bit in zip(ratios, bits.flatten().tolist(), strict=True) if bit]
        outside = [r for r, bit in zip(ratios, bits.flatten().tolist(), strict=True) if not bit]
        assert min(inside, default=9e9) >= max(outside, default=0)


def test_magnitude_keeps_the_largest_weights():
    kept = survivors(evidence(), NOTHING, Reset(share=0.5, keep="magnitude")).frozen
    for name, bits in kept.items():
        sizes = WEIGHTS[name].abs()
        assert sizes[bits].min() >= sizes[~bits].max()


def test_random_survivors_are_a_function_of_the_seed():
    settings = Reset(share=0.5, keep="random")
    one, same, other = (survivors(evidence(s), NOTHING, settings).frozen for s in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("keep", KEEPS)
def test_what_is_frozen_survives_in_any_case(keep):
    mask = frozen()
    kept = survivors(evidence(), mask, Reset(share=1.0, keep=keep)).frozen
    assert all(torch.equal(kept[name], mask.frozen[name]) for name in kept)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_survivors_equal_the_mask_where_the_localizer_chooses(share):
    mask = frozen()
    kept = survivors(evidence(), mask, Reset(share=share, keep="frozen")).frozen
    assert all(torch.equal(kept[name], mask.frozen[name]) for name in SHAPES)
