"""Before and delta give after, to the bit; what did not move costs next to nothing."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from grail.errors import InputError
from grail.handover.delta import apply_delta, write_delta


def saved(folder, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_before_and_delta_give_after_to_the_bit(kind, tmp_path):
    draw = torch.Generator().manual_seed(0)
    old = {n: (100 * torch.randn(7, 5, generator=draw)).to(kind) for n in ("a", "b", "frozen")}
    new = {name: tensor.clone() for name, tensor in old.items()}
    new["a"][2:4] = 1
    if kind.is_floating_point:
        old["b"][0, 0], new["b"][0, 0] = 0.0, -0.0  # equal as numbers
        old["b"][0, 1] = new["b"][0, 1] = float("nan")  # unequal to itself
        new["b"][6, 4] = float("nan")
    before, after = saved(tmp_path / "old", old), saved(tmp_path / "new", new)
    counts = write_delta(before, after, file := tmp_path / "delta.safetensors")
    found = apply_delta(before, file)
    bits = {name: tensor.view(torch.uint8) for name, tensor in new.items()}
    assert {name: tensor.shape for name, tensor in found.items()} == dict.fromkeys(new, (7, 5))
    assert all(torch.equal(found[name].view(torch.uint8), bits[name]) for name in new)
    moved = [old[n].view(torch.uint8).view(35, -1) != bits[n].view(35, -1) for n in new]
    assert counts == {"entries": 105, "changed": sum(int(m.any(1).sum()) for m in moved)}
    parts = load_file(file)
    assert not [name for name in parts if name.startswith("frozen")]
    assert parts["a.bits"].numel() <= 10


def test_models_of_another_shape_have_no_difference(tmp_path):
    one = saved(tmp_path / "one", {"a": torch.ones(2), "b": torch.ones(2)})
    for name, tensors in (
        ("b", {"a": torch.ones(2)}),
        ("a", {"a": torch.ones(3), "b": torch.ones(2)}),
        ("a", {"a": torch.ones(2).half(), "b": torch.ones(2)}),
        ("c", {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}),
    ):
        other = saved(tmp_path / f"other{len(list(tmp_path.iterdir()))}", tensors)
        with pytest.raises(InputError, match=f"no models of one shape: {name}"):
            write_delta(one, other, tmp_path / "delta")
