"""Running sums against means by hand."""

import pytest
import torch
from torch import nn

from grail.importance.sums import Sums


def test_sums_are_means_over_samples():
    parameter = {"w": nn.Parameter(torch.zeros(2))}
    sums = Sums.zeros(parameter)
    sums.add("w", torch.tensor([[1.0, -2.0], [-3.0, 2.0]]))
    sums.add("w", torch.tensor([[4.0, 0.0]]))
    sums.samples = 3
    found = sums.scores()
    assert found.mean["w"].tolist() == pytest.approx([2 / 3, 0])
    assert found.mean_abs["w"].tolist() == pytest.approx([8 / 3, 4 / 3])
    assert found.mean_sq["w"].tolist() == pytest.approx([26 / 3, 8 / 3])
