"""How many entries go, and which."""

import math

import pytest
import torch

from grail.audit.attacks.prune import pruned


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.999])
def test_the_smallest_entries_go_and_exactly_so_many(share):
    weight = torch.randn(13, 11, generator=torch.Generator().manual_seed(0))
    found = pruned(weight, share)
    gone = found == 0
    assert int(gone.sum()) == math.floor(share * 143)
    assert torch.equal(found[~gone], weight[~gone])
    if gone.any():
        assert weight[gone].abs().max() <= weight[~gone].abs().min()


def test_among_equals_the_first_go():
    weight = torch.tensor([[2.0, -1.0], [1.0, -1.0]])
    assert pruned(weight, 0.5).tolist() == [[2.0, 0.0], [0.0, -1.0]]
    assert weight.tolist() == [[2.0, -1.0], [1.0, -1.0]]
