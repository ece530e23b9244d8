"""States of models: copied, compared, changed."""

import torch

from grail.model.forward import trainable


def state(model):
    """Return a copy of all weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    """Tell whether two states have the same names and equal values."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scramble(model):
    """Draw all trainable weights anew."""
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_()
