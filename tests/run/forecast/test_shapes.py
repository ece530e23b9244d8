"""A shape on the meta device against the same model in memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from grail.config.run import Lora, Model
from grail.data.batches import collate
from grail.errors import InputError
from grail.model.forward import answer_logits, trainable
from grail.model.load import load_model
from grail.run.forecast.cost import shape_of
from grail.run.forecast.shapes import SHAPES, Pass, frozen_linear_entries, shaped, traced


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_a_folder_s_shape_is_that_of_its_model(tiny_model_folder, lora):
    settings = Model(name=str(tiny_model_folder), lora=lora, dtype="float32")
    planned, real = shaped(str(tiny_model_folder), settings), load_model(settings, None, 0)
    assert shape_of(planned) == shape_of(real)
    assert all(p.device.type == "meta" for p in planned.parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_have_the_parameters_of_their_names(name):
    shape = shape_of(shaped(name, Model(lora=None)))
    wanted = {"1b": 1.24, "7b": 6.74, "13b": 13.0, "70b": 70.6}[name]  # as published, in 1e9
    assert shape.parameters == pytest.approx(wanted * 1e9, rel=0.01)
    assert shape.bytes == 4 * shape.parameters


def test_what_a_pass_keeps_is_what_autograd_keeps_of_a_real_one(tiny_model_folder, tiny_rows):
    settings = Model(name=str(tiny_model_folder), lora=None, dtype="float32", attention="eager")
    rows = tiny_rows(1, prompt=(6, 6), answer=(4, 4))
    real, kept = load_model(settings, None, 0).train(), {}
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    batch = collate(rows, 0)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = answer_logits(real, batch)
        torch.nn.functional.cross_entropy(logits, batch.targets[batch.at])
    found = traced(shaped(str(tiny_model_folder), settings), 1, 10, 4)
    assert found.kept == pytest.approx(sum(size for size, _ in kept.values()), rel=0.15)
    assert found.inputs < found.layer < found.kept


def test_gradients_come_when_activations_go():
    """Four layers that keep 10 each, and 5 outside of them: worked out step by step."""
    found = Pass(kept=45, layer=10, inputs=4, outside=5, flops=0)
    for gradients in (0, 20, 200):
        steps = [10 * left + gradients * (4 - left) / 4 for left in range(5)]
        assert found.most(gradients, checkpointing=False) >= max([45, *steps[:-1]])
        assert found.most(gradients, checkpointing=False) == max(45, gradients + 10)
    assert found.most(0, checkpointing=True) == 4 + 10 + 5
    assert found.most(200, checkpointing=True) == 200 + 10, "a layer's are made anew"


def test_work_is_six_operations_for_each_weight_and_token():
    model = shaped("1b", Model(lora=None))
    found = traced(model, 1, 32, 32)
    assert found.flops == pytest.approx(6 * shape_of(model).parameters * 32, rel=0.05)


def test_frozen_linear_entries_are_those_under_the_adapter(tiny_model_folder):
    model = shaped(str(tiny_model_folder), Model(lora=Lora(r=2)))
    full = shaped(str(tiny_model_folder), Model(lora=None))
    linear = {n: p for n, p in trainable(full).items() if "proj" in n}
    assert frozen_linear_entries(model) == sum(p.numel() for p in linear.values())
    assert frozen_linear_entries(full) == 0


def test_an_unknown_shape_is_refused():
    with pytest.raises(InputError, match=r"--shape: 7bb is neither one of 1b, 7b.*'7b'"):
        shaped("7bb", Model())
