"""The least that scoring must do."""

import pytest
import torch
from races.floors import STATISTICS, Pace, pace_of, work_of
from torch import nn


def test_the_slower_of_operations_and_bytes_decides():
    pace = Pace(flops=100.0, bytes=10.0)
    assert pace.seconds(200.0, 10.0) == 2.0
    assert pace.seconds(200.0, 50.0) == 5.0


def test_operations_are_counted_by_hand():
    n, i, o = 7, 5, 3
    layer, given = nn.Linear(i, o, bias=False), torch.randn(n, i)
    work = work_of(layer, batches=2, bare_pass=lambda: layer(given).sum().backward())
    assert work.flops == 2 * (2 * n * i * o)  # y = x W^T, and the gradient of W
    assert work.bytes == 2 * (2 * 4 + STATISTICS) * i * o


def test_the_pace_of_this_machine_is_measured():
    pace = pace_of("cpu", torch.float32, 64)
    assert pace.flops > 0
    assert pace.bytes > 0
    assert pace.seconds(pace.flops, 0.0) == pytest.approx(1.0)
