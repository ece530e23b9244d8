"""The ``localization`` section: which localizer, what it reads, and how much it freezes."""

from __future__ import annotations

from typing import Literal

from grail.config.values import Fraction, Name, NotNegative, Section


class Memflex(Section):
    """Which tensors ``memflex`` trains: low cosine to the retain side, high magnitude.

    ``quantile``: ``cosine`` and ``magnitude`` are quantiles over the tensors of each domain.
    ``absolute``: they are the values themselves (published for Llama-2-7B: 0.94 and 5e-4).
    """

    thresholds: Literal["quantile", "absolute"] = "quantile"
    cosine: Fraction = 0.8
    magnitude: NotNegative = 0.2


class Localization(Section):
    """Stage 2: which entries are frozen.

    ``statistic`` is what GRAIL's sets are the top of: the mean of |g| (paper), the mean of g^2, or
    |z|, the standardised signed mean of each tensor (the authors' release). ``budget`` is the share
    of the retain damage that ``damage_budget`` leaves free.
    """

    method: Name = "grail"
    statistic: Literal["mean_abs", "mean_sq", "z_mean"] = "mean_abs"
    k_op_ur: Fraction = 0.10
    k_op_rr: Fraction = 0.20
    layer: Literal["block", "tensor", "model"] = "block"
    freeze: Literal["static", "by_side"] = "static"
    keep_op_ur: bool = True
    keep_op_rr: bool = True
    budget: Fraction = 0.5
    memflex: Memflex = Memflex()
