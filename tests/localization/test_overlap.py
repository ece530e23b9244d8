"""OP-UR, OP-RR and Jaccard, against sets of Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grail.localization.overlap import jaccard, overlap, size

SHAPES = {"p": (2, 3), "q": (5,), "r": ()}


def random_marks(n, seed, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.rand(shape, generator=generator) < share for name, shape in SHAPES.items()}
        for _ in range(n)
    ]


def as_set(marks):
    return {
        (name, index)
        for name, bits in marks.items()
        for index, bit in enumerate(bits.flatten().tolist())
        if bit
    }


def everything():
    return {(n, i) for n, shape in SHAPES.items() for i in range(torch.zeros(shape).numel())}


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_overlap_equals_set_operations(n, seed):
    unlearn, small, large = (random_marks(n, 3 * seed + i) for i in range(3))
    found = overlap(unlearn, small, large)
    u, r, wide = ([as_set(marks) for marks in group] for group in (unlearn, small, large))
    assert as_set(found.op_ur) == set().union(*u) & set().union(*r)
    assert as_set(found.op_rr) == {e for e in everything() if sum(e in s for s in wide) >= 2}
    assert {name: tuple(b.shape) for name, b in found.op_rr.items()} == SHAPES
    assert all(b.dtype == torch.bool for m in (found.op_ur, found.op_rr) for b in m.values())


def test_one_domain_has_no_op_rr_and_two_have_the_intersection():
    one, two = random_marks(1, 7, 0.9), random_marks(2, 7, 0.7)
    assert not as_set(overlap(one, one, one).op_rr)
    assert as_set(overlap(two, two, two).op_rr) == as_set(two[0]) & as_set(two[1]) != set()


def test_overlap_does_not_depend_on_the_order_of_domains():
    u, r, wide = (random_marks(4, seed) for seed in (1, 2, 3))
    forward, backward = overlap(u, r, wide), overlap(u[::-1], r[::-1], wide[::-1])
    assert as_set(forward.op_ur) == as_set(backward.op_ur)
    assert as_set(forward.op_rr) == as_set(backward.op_rr)


def test_overlap_does_not_change_its_input():
    u, r, wide = (random_marks(3, seed) for seed in (1, 2, 3))
    before = [[as_set(m) for m in group] for group in (u, r, wide)]
    overlap(u, r, wide)
    assert [[as_set(m) for m in group] for group in (u, r, wide)] == before


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_jaccard_and_size(seed, share):
    a, b = random_marks(2, seed, share)
    sets = as_set(a), as_set(b)
    either = len(sets[0] | sets[1])
    assert jaccard(a, b) == (len(sets[0] & sets[1]) / either if either else 1.0)
    assert jaccard(a, b) == jaccard(b, a)
    assert jaccard(a, a) == 1.0
    assert size(a) == len(sets[0])
    assert size(a, ["p", "r"]) == len({e for e in sets[0] if e[0] != "q"})
    assert size(a) == sum(size(a, [name]) for name in SHAPES)
    only_q = [{"q": x["q"]} for x in (a, b)]
    assert jaccard(a, b, ["q"]) == jaccard(*only_q)


def test_jaccard_of_disjoint_sets_is_zero():
    a = {"p": torch.tensor([True, False])}
    assert jaccard(a, {"p": ~a["p"]}) == 0.0
