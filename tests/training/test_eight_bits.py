"""AdamW in 8 bits: what it keeps, that it goes on as it was, and where it is refused."""

import json

import pytest
import torch
from torch import nn

from grail.cli.main import main
from grail.config.file import load_config
from grail.errors import InputError
from grail.run.inputs import read_inputs
from grail.run.memory import check_rows
from grail.training import eight_bits
from grail.training.checkpoint import State, load_checkpoint, save_checkpoint
from grail.training.eight_bits import SMALLEST, adamw8bit, check_eight_bits

pytest.importorskip("bitsandbytes")


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"large": (96, 100), "line": (SMALLEST + 3,), "small": (5, 7)}
    parameters = {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}
    return parameters, adamw8bit(list(parameters.values()), 0.01)


def step(parameters, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in parameters.values():
        p.grad = torch.randn(p.shape, generator=generator)
    optimizer.step()


def moments(optimizer, parameter):
    return sum(v.nbytes for v in optimizer.state_dict()["state"][parameter].values() if v.dim())


def test_moments_take_a_quarter_of_those_in_float32():
    parameters, optimizer = made()
    full = torch.optim.AdamW(parameters.values())
    for each in (optimizer, full):
        step(parameters, each, 0)
    for number, entries in ((0, 9600), (1, SMALLEST + 3)):
        assert moments(full, number) == 8 * entries
        assert moments(optimizer, number) / moments(full, number) < 0.26
    assert moments(optimizer, 2) == moments(full, 2), "a small tensor keeps its own"


def test_it_goes_near_where_adamw_goes():
    (ours, optimizer), (theirs, _) = made(), made()
    full = torch.optim.AdamW(theirs.values(), lr=0.01, weight_decay=0.0)
    start = {name: p.detach().clone() for name, p in ours.items()}
    for seed in range(20):
        step(ours, optimizer, seed)
        step(theirs, full, seed)
    for name, p in ours.items():
        way = (theirs[name] - start[name]).norm()
        assert (p - theirs[name]).norm() < (0.05 if name != "small" else 1e-4) * way
        assert (p - start[name]).norm() > 0.5 * way


def test_a_checkpoint_goes_on_to_the_bit(tmp_path):
    (going, optimizer), (loaded, restored) = made(), made(seed=9)
    for seed in range(3):
        step(going, optimizer, seed)
    save_checkpoint(tmp_path / "c", going, optimizer, State(3), "x")
    assert load_checkpoint(tmp_path / "c", loaded, restored, "x").step == 3
    for seed in range(3, 6):
        step(going, optimizer, seed)
        step(loaded, restored, seed)
        assert all(torch.equal(p, loaded[name]) for name, p in going.items())
    large, line = loaded["large"], loaded["line"]
    assert restored.state[large]["qmap1"] is restored.state[line]["qmap1"], "one for all tensors"
    assert isinstance(restored.state[large]["step"], int)
    assert not any("qmap" in key for key in restored.state_dict()["state"][0])


def test_an_entry_without_a_gradient_moves_beside_others():
    """The reason why a mask gives it free entries alone."""
    parameters, optimizer = made()
    p = parameters["large"]
    before, still = p.detach().clone(), torch.zeros(96, 100, dtype=torch.bool)
    still[::2] = True
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        p.grad = torch.randn(96, 100, generator=generator).masked_fill(still, 0.0)
        optimizer.step()
    assert (p != before)[still].sum() > 100


def test_it_is_refused_before_any_work_where_nothing_computes_it(monkeypatch, tiny_config):
    for name in ("adamw", "sgd", "adafactor", "adamw8bit"):
        check_eight_bits(name)
    config = load_config(tiny_config(unlearning={"optimizer": "adamw8bit"}))
    assert read_inputs(config).samples
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(eight_bits, "_KERNEL", "bitsandbytes::none_of_that_name")
    with pytest.raises(InputError, match="adamw8bit has no kernel for a CPU in the installed"):
        read_inputs(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_eight_bits("adamw8bit")
    monkeypatch.setattr(eight_bits, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"adamw8bit needs bitsandbytes: pip install 'grail-unl"):
        read_inputs(config)
    with pytest.raises(InputError, match="adamw8bit needs bitsandbytes"):
        check_rows(config.unlearning, [])
    check_eight_bits("adamw")


def test_a_run_from_the_settings_freezes_to_the_bit(monkeypatch, tiny_config, tmp_path):
    monkeypatch.setattr(eight_bits, "SMALLEST", 1)
    settings = {"optimizer": "adamw8bit"}
    assert main(["run", str(tiny_config(model={"lora": None}, unlearning=settings))]) == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())["freezing"]
    assert 0 < found["frozen"] < found["entries"]
    assert found["changed"] == 0
    assert found["moved"] > 1000
