"""The ``localization`` section: the localizer, the scores it reads, and how much it freezes."""

from typing import Literal

from pydantic import ConfigDict, Field

from grail.config.values import FilePath, Fraction, Name, NotNegative, Section


class Memflex(Section):
    """The tensors that ``memflex`` trains: low cosine to the retain side, high magnitude."""

    thresholds: Literal["quantile", "absolute"] = "quantile"
    """quantile: limits over the tensors of each domain; a tensor selected in any is trained.
    absolute: the values themselves, of all domains' rows together (published for Llama-2-7B: 0.94
    and 5e-4)."""
    cosine: Fraction = 0.8
    """Upper limit of the cosine between the gradients of the two sides."""
    magnitude: NotNegative = 0.2
    """Lower limit of the magnitude of the unlearn side's gradient."""


class Localization(Section):
    """Stage 2: choose the entries that are frozen while unlearning."""

    model_config = ConfigDict(serialize_by_alias=True)

    method: Name = "grail"
    """The localizer: grail, none (freeze nothing), random or magnitude (controls of grail's size),
    memflex, damage_budget, or your own as package.module:function."""
    reused: FilePath | None = Field(default=None, alias="from")
    """Directory of a run on the same model whose mask is taken as it is; the other settings of this
    section then only describe it. null: make a mask."""
    statistic: Literal["mean_abs", "mean_sq", "z_mean"] = "mean_abs"
    """Score whose top entries make grail's sets: the mean of |g| (paper), the mean of g^2, or |z|,
    the signed mean standardised per tensor (the authors' release)."""
    k_op_ur: Fraction = 0.10
    """Share of each layer (0-1). OP-UR holds the entries in this top share of an unlearn side and
    of a retain side."""
    k_op_rr: Fraction = 0.20
    """Share of each layer (0-1). OP-RR holds the entries in this top share of the retain sides of
    two domains."""
    layer: Literal["auto", "block", "tensor", "model"] = "auto"
    """The entries that compete for a top set: of a block, tensor or model. auto: tensor for an
    adapter, whose mask then does not depend on the scale of A and B; block for all weights."""
    freeze: Literal["static", "by_side"] = "static"
    """static: freeze OP-UR and OP-RR (paper). by_side: unlearn gradients skip OP-UR, retain
    gradients OP-RR (the authors' release)."""
    keep_op_ur: bool = True
    """false: leave OP-UR out (ablation)."""
    keep_op_rr: bool = True
    """false: leave OP-RR out (ablation)."""
    budget: Fraction = 0.5
    """Share of the retain damage that damage_budget allows (0-1)."""
    memflex: Memflex = Memflex()
