"""Every measure by hand and against its definition written out."""

import math
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grail.evaluation.memorization import (
    SMALLEST_DEVIATION,
    auc,
    auc_error,
    extraction_strength,
    min_k,
    min_k_plus_plus,
    probability,
    zlib_ratio,
)

NLL = torch.tensor([0.5, 4.0, 1.0, 2.0, 0.0])


@pytest.mark.parametrize(
    ("hits", "strength"),
    [([1, 0, 1, 1], 0.5), ([1, 1, 1], 1.0), ([1, 1, 0], 0.0), ([0], 0.0), ([0, 0, 1], 1 / 3)],
)
def test_extraction_strength_by_hand(hits, strength):
    assert extraction_strength(torch.tensor(hits).bool()) == pytest.approx(strength)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_extraction_strength_is_what_need_not_be_given(hits):
    given_first = next(k for k in range(len(hits) + 1) if all(hits[k:]))
    found = extraction_strength(torch.tensor(hits))
    assert found == pytest.approx(1 - given_first / len(hits))


def test_probability_is_the_geometric_mean():
    assert probability((math.log(2) + math.log(8)) / 2) == pytest.approx(math.sqrt(1 / 16))
    assert (probability(0.0), probability(1e6)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("share", "mean"),
    [(0.2, 4.0), (0.01, 4.0), (0.4, 3.0), (0.59, 3.0), (0.6, 7 / 3), (1.0, 1.5)],
)
def test_min_k_reads_the_least_probable_tokens_and_at_least_one(share, mean):
    assert min_k(NLL, share) == pytest.approx(mean)
    assert min_k(NLL.flip(0), share) == pytest.approx(mean)


@pytest.mark.parametrize("percent", range(1, 101))
def test_rounding_takes_no_token_away(percent):
    """0.29 * 100 is 28.999999999999996."""
    nll = torch.arange(100.0)
    assert min_k(nll, percent / 100) == pytest.approx(nll[-percent:].mean().item())


def test_min_k_plus_plus_by_hand():
    nll, mean = torch.tensor([3.0, 1.0, 0.5]), torch.tensor([-1.0, -2.0, -0.5])
    deviation = torch.tensor([0.5, 2.0, 1.0])  # (nll + mean) / deviation: 4, -0.5, 0
    assert min_k_plus_plus(nll, mean, deviation, 0.4) == pytest.approx(4.0)
    assert min_k_plus_plus(nll, mean, deviation, 0.7) == pytest.approx(2.0)
    assert min_k_plus_plus(nll, mean, deviation, 1.0) == pytest.approx(3.5 / 3)


def test_a_certain_model_expects_its_token_and_no_other():
    mean, deviation = torch.zeros(1), torch.zeros(1)
    assert min_k_plus_plus(torch.zeros(1), mean, deviation, 1.0) == 0.0
    found = min_k_plus_plus(torch.full((1,), 30.0), mean, deviation, 1.0)
    assert found == pytest.approx(30.0 / SMALLEST_DEVIATION)


def test_zlib_ratio_is_a_total_over_a_total():
    text = "ab" * 40
    size = len(zlib.compress(text.encode()))
    assert zlib_ratio(NLL, text) == pytest.approx(7.5 / size)
    assert zlib_ratio(torch.cat([NLL, NLL]), text) == pytest.approx(15.0 / size)
    assert zlib_ratio(NLL, "zürich") == pytest.approx(7.5 / len(zlib.compress("zürich".encode())))
    assert zlib_ratio(NLL, text) > zlib_ratio(NLL, "".join(map(chr, range(40, 120))))


SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9)


@given(SCORES, SCORES)
def test_auc_is_the_share_of_pairs_with_ties_half(members, held_out):
    won = [(other > own) + (other == own) / 2 for own in members for other in held_out]
    assert auc(members, held_out) == pytest.approx(sum(won) / len(won))
    assert auc(held_out, members) == pytest.approx(1 - auc(members, held_out))


def test_auc_by_hand():
    assert auc([1.0, 2.0], [3.0]) == 1.0
    assert auc([1.0, 2.0], [0.0, 0.5]) == 0.0
    assert auc([1.0, 3.0], [2.0, 3.0]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    close = 1.0 + 1e-12  # told apart in float64, not in float32
    assert auc([1.0], [close]) == 1.0


@pytest.mark.parametrize(("members", "held_out"), [([], [1.0]), ([1.0], [])])
def test_no_rows_no_auc(members, held_out):
    with pytest.raises(ValueError, match="a member and a held-out row"):
        auc(members, held_out)


def test_auc_error_of_one_pair_is_that_of_a_coin_and_none_at_the_ends():
    assert auc_error(0.2, 1, 1) == pytest.approx(math.sqrt(0.2 * 0.8))
    assert auc_error(0.5, 1, 1) == 0.5
    assert auc_error(1.0, 9, 4) == auc_error(0.0, 9, 4) == 0.0


def test_auc_error_is_the_spread_over_draws():
    """Exact for exponential scores; the groups differ in size, so that they cannot be mixed up."""
    draws, members, held_out, area = 4000, 30, 5, 0.8
    generator = torch.Generator().manual_seed(0)
    own = torch.empty(draws, members, 1).exponential_(1.0, generator=generator)
    others = torch.empty(draws, 1, held_out).exponential_((1 - area) / area, generator=generator)
    areas = (others > own).double().mean((1, 2))
    assert areas.mean().item() == pytest.approx(area, abs=0.01)
    assert areas.std().item() == pytest.approx(auc_error(area, members, held_out), rel=0.05)
