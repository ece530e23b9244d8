"""Memorization and membership scores of one row from a teacher-forced pass, as pure functions.

Inputs are per completion token, in order, end token included. The membership scores (Min-K%,
Min-K%++, zlib ratio, and the NLL itself) are low for rows that the model has seen.
"""

import math
import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_DEVIATION = 1e-3
"""Nats. log p in float32 has an error of about 1e-6, which a smaller divisor would amplify."""

_ROUNDING = 1e-9


def extraction_strength(hits: Bool[Tensor, " L"]) -> float:
    """Return the share of the completion that greedy decoding can finish, 0-1.

    The length of the final run of hits (the target was the most probable token) over L: 1 minus the
    smallest share of the completion after which greedy decoding gives all the rest (Carlini et al.
    2021, arXiv 2012.07805; in this form Wang et al. 2025, arXiv 2406.09179).
    """
    return int(hits.flip(0).long().cumprod(0).sum()) / hits.numel()


def probability(nll: float) -> float:
    """Return the geometric mean of the tokens' probabilities, 0-1, from their mean NLL in nats.

    (TOFU, Maini et al. 2024, arXiv 2401.06121: the answer's probability to the power 1 / L.)
    """
    return math.exp(-nll)


def min_k(nll: Float[Tensor, " L"], share: float) -> float:
    """Return Min-K%: the mean NLL (nats, 0 or more) of the ``share`` (0-1) least probable tokens.

    That is the floor of ``share * L`` tokens, and at least one (Shi et al. 2024, arXiv 2310.16789,
    with the opposite sign).
    """
    return _mean_of_largest(nll, share)


def min_k_plus_plus(
    nll: Float[Tensor, " L"],
    mean: Float[Tensor, " L"],
    deviation: Float[Tensor, " L"],
    share: float,
) -> float:
    """Return Min-K%++: Min-K% of NLLs that are standardised at each token, any real number.

    A token's value is (mean - log p) / deviation (Zhang et al. 2025, arXiv 2404.02936, with the
    opposite sign). The deviation is at least 1e-3 nats, so that the values of a model that is
    certain, or that finds all tokens equal, stay finite.

    Args:
        nll: -log p of the target, nats.
        mean: Mean of log p under the model's own distribution at this token, nats.
        deviation: Its standard deviation, nats.
        share: Share of the tokens that are read, above 0 and up to 1.
    """
    return _mean_of_largest((nll + mean) / deviation.clamp(min=SMALLEST_DEVIATION), share)


def zlib_ratio(nll: Float[Tensor, " L"], text: str) -> float:
    """Return the summed NLL (nats) per byte of the zlib-compressed text; ``text`` is the tokens'.

    It compares the text's size in the model with its size in zlib. Carlini et al. (2021, arXiv
    2012.07805) compare samples of one length, where sum and mean of the NLL differ by a constant.
    Rows differ in length and the bytes are a total, so the sum is the right numerator: a mean over
    a total would fall with the length alone.
    """
    return math.fsum(nll.double().tolist()) / len(zlib.compress(text.encode()))


def auc(members: Sequence[float], held_out: Sequence[float]) -> float:
    """Return the probability (0-1) that a held-out row scores higher than a member; ties half.

    1: every held-out row scores higher than every member. 0.5: the groups are indistinguishable.
    The area under the ROC curve by ranks (Mann-Whitney U over the number of pairs).

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

    The approximation of Hanley and McNeil (1982, Radiology 143, 29-36), for scores that are about
    exponentially distributed. It is 0, and meaningless, at an area of 0 or 1.
    """
    both_held_out, both_members = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area)
        + (held_out - 1) * (both_held_out - area**2)
        + (members - 1) * (both_members - area**2)
    )
    return math.sqrt(max(0.0, variance) / (members * held_out))


def _mean_of_largest(values: Float[Tensor, " L"], share: float) -> float:
    count = max(1, math.floor(share * values.numel() + _ROUNDING))
    return float(values.double().topk(count).values.mean())
