"""Who gets the kernel, and who is told why not."""

import importlib.util

import pytest
import torch
from torch import nn

from grail.errors import InputError
from grail.importance import kernel_choice as kernels
from grail.importance.kernel_choice import SMALLEST, Fused, fused_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def triton(monkeypatch):
    """Say whether Triton is installed."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def set_there(there):
        monkeypatch.setattr(kernels, "find_spec", lambda name: there or None)

    return set_there


def test_products_where_there_is_no_accelerator_or_no_triton(triton):
    for there in (True, False):
        triton(there)
        assert fused_for("bmm", CUDA) is None
        assert fused_for("auto", CPU) is None
    assert fused_for("auto", CUDA) is None


def test_what_cannot_run_is_refused(triton):
    triton(False)
    for device in (CPU, CUDA):
        with pytest.raises(InputError, match=r"importance\.kernel: triton.*not installed"):
            fused_for("triton", device)
    triton(True)
    with pytest.raises(InputError, match="the model is on cpu") as error:
        fused_for("triton", CPU)
    assert "importance.kernel: auto" in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_auto_is_for_large_weights_and_triton_for_all(triton, monkeypatch):
    triton(True)
    from grail.importance.triton_kernel import add_products

    assert fused_for("auto", CUDA) == Fused(add_products, SMALLEST)
    assert fused_for("triton", CUDA) == Fused(add_products, 0)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused_for("triton", CPU) == Fused(add_products, 0)
    assert fused_for("auto", CPU) is None, "the interpreter is for those who ask for it"


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_weights_of_plain_linear_layers_from_a_size_on():
    kernel = Fused(print, 12)
    assert kernel.takes(nn.Linear(3, 4), "weight")
    assert not kernel.takes(nn.Linear(3, 4), "bias")
    assert not kernel.takes(nn.Linear(3, 3), "weight")
    assert not kernel.takes(Scaled(3, 4), "weight")
    assert not kernel.takes(nn.Embedding(3, 4), "weight")
