"""Where the kernel is chosen, and where it is refused."""

import importlib.util

import pytest
import torch

from grail.errors import InputError
from grail.importance import kernel_choice
from grail.importance.kernel_choice import choose_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def triton(monkeypatch):
    """Say whether Triton is installed."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def set_there(there):
        monkeypatch.setattr(kernel_choice, "find_spec", lambda name: there or None)

    return set_there


def test_auto_means_batched_products_everywhere(triton):
    for installed in (True, False):
        triton(installed)
        for device in (CPU, CUDA):
            assert choose_kernel("auto", device) is None
            assert choose_kernel("bmm", device) is None


def test_what_cannot_run_is_refused(triton):
    triton(False)
    for device in (CPU, CUDA):
        with pytest.raises(InputError, match=r"importance\.kernel: triton.*not installed"):
            choose_kernel("triton", device)
    triton(True)
    with pytest.raises(InputError, match="the model is on cpu") as error:
        choose_kernel("triton", CPU)
    assert "importance.kernel: auto" in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_triton_is_chosen_on_cuda_and_in_the_interpreter(triton, monkeypatch):
    triton(True)
    from grail.importance.triton_kernel import add_products

    assert choose_kernel("triton", CUDA) is add_products
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose_kernel("triton", CPU) is add_products
    assert choose_kernel("auto", CPU) is None, "the interpreter is for those who ask for it"
