"""Shapes in the signatures of grail are checked while the tests run, by jaxtyping's import hook."""

import jaxtyping
import pytest
import torch

from grail.model.nll import token_nll


def test_a_wrong_shape_is_refused():
    token_nll(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))
    for wrong in (torch.zeros(3, dtype=torch.long), torch.zeros(2)):  # another length, no integers
        with pytest.raises(jaxtyping.TypeCheckError, match="targets"):
            token_nll(torch.zeros(2, 5), wrong)
