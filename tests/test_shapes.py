"""The tests' type checker: shapes in signatures of grail are checked, what says none is let be."""

from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import Float
from torch import Tensor

from grail.model.nll import token_nll


def test_shapes_of_the_package_are_checked():
    token_nll(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))
    for wrong in (torch.zeros(3, dtype=torch.long), torch.zeros(2)):  # another length, no integers
        with pytest.raises(jaxtyping.TypeCheckError, match="targets"):
            token_nll(torch.zeros(2, 5), wrong)


def test_only_the_first_calls_in_a_test_are(script):
    good = torch.zeros(2, 5), torch.zeros(2, dtype=torch.long)
    for _ in range(script("shapes").CALLS):
        token_nll(*good)
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        token_nll(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))


@dataclass
class Within:
    inner: list[Float[Tensor, " B"]] | None


def within(inner: list[Float[Tensor, " B"]] | None) -> int:
    return 0


def in_words(inner: "Float[Tensor, ' B']") -> int:
    return 0


def without(given: int) -> str:
    return ""


def test_only_what_says_shapes_is_wrapped():
    wrap = jaxtyping.jaxtyped(typechecker=beartype)  # as the import hook finds it

    def local(x: Float[Tensor, " B"]) -> None:
        pass

    assert wrap(within) is not within
    assert wrap(in_words) is not in_words
    assert wrap(without) is without
    assert wrap(local) is local
    with pytest.raises(jaxtyping.TypeCheckError, match="inner"):
        wrap(Within)([torch.zeros(2, 2)])
