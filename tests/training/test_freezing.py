"""What the mask hides, what decay leaves alone, and what the proof finds."""

import math

import pytest
import torch
from torch import nn

from grail.artifacts import Mask
from grail.training.freezing import Freezing


def parameters_and_mask(by_side=False):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 3), "b": (5,)}
    parameters = {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}

    def bits():
        return {n: torch.rand(s, generator=generator) < 0.5 for n, s in shapes.items()}

    if not by_side:
        return parameters, Mask(bits())
    unlearn, retain = bits(), bits()
    return parameters, Mask({n: unlearn[n] & retain[n] for n in unlearn}, unlearn, retain)


def test_frozen_entries_are_filled_with_plus_zero_whatever_stood_there():
    parameters, mask = parameters_and_mask()
    gradients = {n: torch.full_like(p, -math.inf) for n, p in parameters.items()}
    for side in ("", "unlearn", "retain"):
        masked = Freezing(parameters, mask).masked(gradients, side)
        for name, bits in mask.frozen.items():
            assert (masked[name][~bits] == -math.inf).all()
            assert not masked[name][bits].any()
            assert not torch.signbit(masked[name][bits]).any()
    assert Freezing(parameters, None).masked(gradients, "") == gradients


def test_each_side_has_its_own_bits_and_no_group_of_both():
    parameters, mask = parameters_and_mask(by_side=True)
    ones = {n: torch.ones_like(p) for n, p in parameters.items()}
    freezing = Freezing(parameters, mask)
    for side in ("unlearn", "retain"):
        masked = freezing.masked(ones, side)
        assert all(torch.equal(masked[n] == 0, bits) for n, bits in mask.for_side(side).items())
    with pytest.raises(KeyError):
        freezing.masked(ones, "")


@pytest.mark.parametrize("by_side", [False, True])
def test_vectors_of_free_entries_are_masked_and_decay_as_whole_tensors_do(by_side):
    generator = torch.Generator().manual_seed(0)
    parameters = {n: nn.Parameter(torch.randn(9, 7)) for n in "ab"}

    def bits(share):
        return {"a": torch.rand((9, 7), generator=generator) < share, "b": torch.eye(9, 7) > 0}

    unlearn, retain = bits(0.9), bits(0.9)
    frozen = {n: unlearn[n] & retain[n] for n in unlearn}
    mask = Mask(frozen, unlearn, retain) if by_side else Mask(frozen)
    whole, vectors = Freezing(parameters, mask), Freezing(parameters, mask, lambda s: s >= 0.5)
    assert list(Freezing(parameters, mask, lambda share: share > 0).vectors) == ["a", "b"]
    assert list(vectors.vectors) == ["a"]  # little is frozen of b: a copy would not pay

    def shown(tensors):
        return {"a": tensors["a"][~frozen["a"]], "b": tensors["b"]}

    gradients = {n: torch.randn(9, 7, generator=generator) for n in "ab"}
    for side in ("unlearn", "retain") if by_side else ("", "unlearn", "retain"):
        expected, found = (
            shown(whole.masked(gradients, side)),
            vectors.masked(shown(gradients), side),
        )
        assert all(torch.equal(expected[n], found[n]) for n in "ab")
    small = {n: nn.Parameter(p.detach().clone()) for n, p in shown(parameters).items()}
    vectors.decay(small, 0.1)
    whole.decay(parameters, 0.1)
    assert all(torch.equal(small[n], p) for n, p in shown(parameters).items())


@pytest.mark.parametrize("inside", [True, False])
def test_the_proof_counts_and_finds_a_single_bit(inside):
    parameters, mask = parameters_and_mask()
    freezing = Freezing(parameters, mask)
    place = mask.frozen["a"] if inside else ~mask.frozen["a"]
    with torch.no_grad():
        row, column = place.nonzero()[0].tolist()
        parameters["a"][row, column] = torch.nextafter(parameters["a"][row, column], torch.ones(()))
    if inside:
        with pytest.raises(RuntimeError, match=r"^1 frozen entries changed"):
            freezing.proof()
        return
    proof = freezing.proof()
    assert (proof["changed"], proof["moved"], proof["entries"]) == (0, 1, 17)
    assert proof["frozen"] == sum(int(bits.sum()) for bits in mask.frozen.values())
    assert proof["sha256_before"] == proof["sha256_after"]
    assert Freezing(parameters, None).proof() == {}


def special(dtype):
    values = [-0.0, 0.0, 1.5, -2.5, math.inf, -math.inf, math.nan, 1e-38, -1e-38, 1.0]
    return nn.Parameter(torch.tensor(values, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_decay_leaves_every_bit_of_frozen_entries(dtype):
    bits = {torch.float32: torch.int32}.get(dtype, torch.int16)
    frozen = torch.arange(10) % 10 < 9
    p = special(dtype)
    before = p.detach().clone().view(bits)
    Freezing({"p": p}, Mask({"p": frozen})).decay({"p": p}, 0.1)
    assert torch.equal(p.detach().view(bits)[frozen], before[frozen])
    assert float(p[9].detach()) == pytest.approx(0.9, rel=1e-2)


def test_decay_shrinks_the_free_and_the_unmasked():
    p, q = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5))
    before = p.detach().clone(), q.detach().clone()
    frozen = torch.rand(6, 4) < 0.5
    Freezing({"p": p, "q": q}, Mask({"p": frozen})).decay({"p": p, "q": q}, 0.125)
    assert torch.equal(p.detach(), torch.where(frozen, before[0], before[0] * 0.875))
    assert torch.equal(q.detach(), before[1] * 0.875)
    assert p.requires_grad
    assert p.grad is None


def test_with_nothing_frozen_it_is_the_decay_of_adamw():
    """Ours, then the step = torch's AdamW with weight_decay, which decays before it steps."""
    start = torch.randn(7, 5)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    a = torch.optim.AdamW([ours], lr=0.01, weight_decay=0.0)
    b = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.3)
    for _ in range(5):
        gradient = torch.randn(7, 5)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        Freezing({"p": ours}, None).decay({"p": ours}, 0.01 * 0.3)
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
