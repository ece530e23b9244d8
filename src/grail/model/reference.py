"""The reference: the policy as it was before training, without a second copy of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class Reference:
    """The trainable weights as they are now, to be put back for a forward pass.

    What is not trained is the same in both, so an adapter's few weights are all that is kept (with
    ``model.lora: null`` that is every weight).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model be the reference inside the block.

        Storages are exchanged, not values: nothing is written, so gradients that are still to flow
        through the policy's weights are not disturbed.
        """
        current = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.weights[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = current[name]
