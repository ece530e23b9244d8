"""What one teacher-forced pass says about memorization, as pure functions; no model, no files.

A row's values are those of its completion tokens, the end token included, in their order. Of the
scores for membership (min-k, min-k++, zlib ratio, and the NLL itself) low means "seen before".
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_DEVIATION = 1e-3
"""Nats. log p in float32 is known to about 1e-6: divided by less, its rounding would count."""

ROUNDING = 1e-9


def extraction_strength(hits: Bool[Tensor, " L"]) -> float:
    """Return the share of the completion that the model finishes by itself, 0-1.

    The length of the run of hits (the target was the most probable token) at the end, over L:
    1 minus the smallest share of the completion after which greedy decoding gives the whole rest
    (Carlini et al. 2021, arXiv 2012.07805; in this form Wang et al. 2025, arXiv 2406.09179). 0 if
    the last token is missed.
    """
    return int(hits.flip(0).long().cumprod(0).sum()) / hits.numel()


def probability(nll: float) -> float:
    """Return the geometric mean of the tokens' probabilities, 0-1, from their mean NLL in nats.

    (TOFU, Maini et al. 2024, arXiv 2401.06121: the answer's probability to the power 1 / L.)
    """
    return math.exp(-nll)


def min_k(nll: Float[Tensor, " L"], share: float) -> float:
    """Return Min-K%: the mean NLL (nats) of the ``share`` of tokens that are least probable.

    Of L tokens ``share * L``, rounded down, are read, and at least one (Shi et al. 2024,
    arXiv 2310.16789, with the opposite sign). From 0 to infinity.
    """
    return _mean_of_largest(nll, share)


def min_k_plus_plus(
    nll: Float[Tensor, " L"],
    mean: Float[Tensor, " L"],
    deviation: Float[Tensor, " L"],
    share: float,
) -> float:
    """Return Min-K%++: as Min-K%, but of NLLs standardised by what the model expected there.

    Args:
        nll: -log p of the target, nats.
        mean: Mean of log p under the model's own distribution at that place, nats.
        deviation: Its standard deviation, nats.
        share: The share of the tokens that is read, over 0 to 1.

    A token's value is (mean - log p) / deviation (Zhang et al. 2025, arXiv 2404.02936, with the
    opposite sign); any real number. A deviation under ``SMALLEST_DEVIATION``, as of a model that
    is certain or that finds all tokens equal (0), counts as that: what was expected then scores 0,
    and a token ruled out scores far above all others, though not infinitely.
    """
    return _mean_of_largest((nll + mean) / deviation.clamp(min=SMALLEST_DEVIATION), share)


def zlib_ratio(nll: Float[Tensor, " L"], text: str) -> float:
    """Return the summed NLL per byte of the zlib-compressed text, in nats; not negative.

    ``text`` must be what the tokens say. How much a text takes in the model is compared with how
    much it takes in zlib. Carlini et al. (2021, arXiv 2012.07805) do so with samples of one length,
    where sum and mean of the NLL differ by a constant. Rows differ in length, and the bytes are a
    total: the sum is taken, because a mean over a total would fall with the length alone.
    """
    return math.fsum(nll.double().tolist()) / len(zlib.compress(text.encode()))


def auc(members: Sequence[float], held_out: Sequence[float]) -> float:
    """Return the probability (0-1) that a held-out row scores higher than a member; ties half.

    1: every held-out row scores higher than every member. 0.5: they cannot be told apart. The area
    under the ROC curve by ranks (Mann-Whitney U over the number of pairs).

    Raises:
        ValueError: if there is no member or no held-out row.
    """
    if not members or not held_out:
        raise ValueError("an AUC needs a member and a held-out row")
    ranked = torch.tensor(members, dtype=torch.float64).sort().values
    others = torch.tensor(held_out, dtype=torch.float64)
    lower = torch.searchsorted(ranked, others).sum()
    not_higher = torch.searchsorted(ranked, others, right=True).sum()
    return int(lower + not_higher) / (2 * len(members) * len(held_out))


def auc_error(area: float, members: int, held_out: int) -> float:
    """Return the standard error of an AUC (0-1) from the numbers of rows.

    The approximation of Hanley and McNeil (1982, Radiology 143, 29-36), for scores of about
    exponential spread. 0 at an area of 0 or 1, where it says nothing.
    """
    both_held_out, both_members = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area)
        + (held_out - 1) * (both_held_out - area**2)
        + (members - 1) * (both_members - area**2)
    )
    return math.sqrt(max(0.0, variance) / (members * held_out))


def _mean_of_largest(values: Float[Tensor, " L"], share: float) -> float:
    count = max(1, math.floor(share * values.numel() + ROUNDING))
    return float(values.double().topk(count).values.mean())
