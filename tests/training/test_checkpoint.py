"""A checkpoint is whole or absent, gives back every bit, and is never mixed with another's log."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from grail.errors import InputError
from grail.training import checkpoint
from grail.training.checkpoint import (
    State,
    load_checkpoint,
    save_checkpoint,
    tell_reached,
    training_log,
)
from grail.training.optimizer import OPTIMIZERS, LoopSettings


class StoppedError(Exception):
    pass


def parameters_of(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {
        n: nn.Parameter(torch.randn(*shape, generator=generator).to(dtype))
        for n, shape in (("a.weight", (4, 3)), ("a.bias", (4,)), ("b.weight", (2, 4)))
    }
    made["a.bias"].data[:2] = torch.tensor([-0.0, 1e-38])
    made["b.weight"] = nn.Parameter(made["b.weight"].data.t())  # not contiguous
    return made


def optimizer_of(name, parameters, momentum=0.9):
    settings = LoopSettings(learning_rate=0.01, epochs=1, seed=0, momentum=momentum)
    return OPTIMIZERS[name](list(parameters.values()), settings)


def step(parameters, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in parameters.values():
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    optimizer.step()


def raw(tensor):
    return tensor.detach().contiguous().view(torch.uint8)


MEMORY = {"x": [2, 0.1], "y": [1, 1 / 3]}


def direction_of(parameters, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator).to(p.dtype) for n, p in parameters.items()}


def at(step=7, direction=None):
    return State(step, 2, 1, direction or {}, MEMORY)


def save(folder, seed=0, inputs="x", step_=7, optimizer="adamw"):
    parameters = parameters_of(seed=seed)
    made = optimizer_of(optimizer, parameters)
    step(parameters, made, seed)
    save_checkpoint(folder, parameters, made, at(step_), inputs)
    return parameters


def load(folder, inputs="x"):
    parameters = parameters_of(seed=99)
    state = load_checkpoint(folder, parameters, optimizer_of("adamw", parameters), inputs)
    return state, parameters


def same(a, b):
    return all(torch.equal(raw(a[n]), raw(b[n])) for n in a)


@pytest.mark.parametrize(("name", "momentum"), [*((n, 0.9) for n in OPTIMIZERS), ("sgd", 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_goes_on_as_if_nothing_had_been(tmp_path, name, momentum, dtype):
    going = parameters_of(dtype)
    optimizer = optimizer_of(name, going, momentum)
    for seed in range(3):
        step(going, optimizer, seed)
    direction = direction_of(going)
    save_checkpoint(tmp_path / "c", going, optimizer, at(direction=direction), "x")
    loaded = parameters_of(dtype, seed=99)
    restored = optimizer_of(name, loaded, momentum)
    state = load_checkpoint(tmp_path / "c", loaded, restored, "x")
    assert (state.step, state.epoch, state.index, state.task) == (7, 2, 1, MEMORY)
    assert state.direction.keys() == direction.keys()
    assert same(direction, state.direction)
    assert same(going, loaded)
    for seed in range(3, 6):
        step(going, optimizer, seed)
        step(loaded, restored, seed)
        assert same(going, loaded)


def test_the_direction_comes_back_where_the_parameters_are(tmp_path):
    parameters = parameters_of()
    made = optimizer_of("sgd", parameters)
    state = at(direction=direction_of(parameters))
    save_checkpoint(tmp_path / "c", parameters, made, state, "x")
    elsewhere = {n: nn.Parameter(p.detach().to("meta")) for n, p in parameters.items()}
    found = load_checkpoint(tmp_path / "c", elsewhere, optimizer_of("sgd", elsewhere), "x")
    assert {value.device.type for value in found.direction.values()} == {"meta"}


@pytest.mark.parametrize("made", [False, True])
def test_nothing_and_another_runs_checkpoint_leave_all_as_it_is(tmp_path, made):
    if made:
        save(tmp_path / "c", inputs="other")
    found, parameters = load(tmp_path / "c")
    assert found == State()
    assert same(parameters, parameters_of(seed=99))


@pytest.mark.parametrize("broken_at", ["weights", "direction", "optimizer", "state.json"])
@pytest.mark.parametrize("old", [False, True])
def test_stopped_while_saving_keeps_the_old_one_or_none(tmp_path, monkeypatch, broken_at, old):
    folder = tmp_path / "c"
    before = save(folder, seed=1, step_=3) if old else parameters_of(seed=99)

    def stop(*_, **__):
        raise StoppedError

    real = checkpoint.write_tensors
    with monkeypatch.context() as patch:
        if broken_at == "state.json":
            patch.setattr(checkpoint, "write_json", stop)
        else:
            patch.setattr(
                checkpoint,
                "write_tensors",
                lambda path, *more: stop() if path.name == broken_at else real(path, *more),
            )
        with pytest.raises(StoppedError):
            save(folder, seed=2, step_=9)
    found, parameters = load(folder)
    assert found == (at(3) if old else State())
    assert same(parameters, before)
    assert [p.name for p in tmp_path.iterdir()] == (["c"] if old else [])


def test_leftovers_of_a_killed_process_are_not_read(tmp_path):
    """Killed without a chance to tidy: before the first move, between the moves, after the last."""
    folder = tmp_path / "c"
    new = save(tmp_path / "c.partial", seed=2, step_=9)
    assert load(folder)[0] == State()
    old = save(folder, seed=1, step_=3)
    save(tmp_path / "half", seed=2, step_=9)
    (tmp_path / "half" / "state.json").unlink()
    (tmp_path / "half").rename(tmp_path / "c.partial")
    found, parameters = load(folder)
    assert found == at(3)
    assert same(parameters, old)
    folder.rename(tmp_path / "c.old")  # between the moves: from the beginning
    assert load(folder)[0] == State()
    (tmp_path / "c.partial").rename(tmp_path / "junk")
    new = save(folder, seed=2, step_=9)
    found, parameters = load(folder)
    assert found == at(9)
    assert same(parameters, new)
    assert not (tmp_path / "c.old").exists()


def test_files_hold_plain_tensors_under_the_models_names(tmp_path):
    made = save(tmp_path / "c")
    assert set(load_file(tmp_path / "c" / "weights")) == set(made)
    assert json.loads((tmp_path / "c" / "state.json").read_text())["inputs"] == "x"


def written(path):
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def write(path, steps, numbers, stop=False):
    with training_log(path, steps, True) as line:
        for n in numbers:
            line({"n": n})
        if stop:
            raise StoppedError


def test_the_log_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "sub" / "log.jsonl"
    partial = path.with_name("log.jsonl.partial")
    with training_log(path, 0, True) as line:
        line({"n": 1})
        assert written(partial) == [1]  # readable while the run goes on
        assert not path.exists()
    assert written(path) == [1]
    assert [p.name for p in path.parent.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_an_interrupted_log_goes_on_after_the_steps_that_are_kept(tmp_path, steps):
    path = tmp_path / "log"
    with pytest.raises(StoppedError):
        write(path, 0, range(4), stop=True)
    assert not path.exists()
    write(path, steps, [10, 11])
    assert written(path) == [*range(steps), 10, 11]


def test_a_finished_log_goes_on_too(tmp_path):
    write(tmp_path / "log", 0, range(4))
    write(tmp_path / "log", 3, [10])
    assert written(tmp_path / "log") == [0, 1, 2, 10]


def test_the_log_of_an_interrupted_run_comes_before_an_older_finished_one(tmp_path):
    path = tmp_path / "log"
    write(path, 0, [100, 101, 102])
    with pytest.raises(StoppedError):
        write(path, 0, [0, 1], stop=True)
    assert written(path) == [100, 101, 102]
    write(path, 2, [2])
    assert written(path) == [0, 1, 2]


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "log"
    path.with_name("log.partial").write_text('{"n": 0}\n{"n": 1}\n{"n"')
    write(path, 2, [2])
    assert written(path) == [0, 1, 2]


def test_stopped_while_the_kept_lines_are_written_loses_none(tmp_path, monkeypatch):
    path = tmp_path / "log"
    with pytest.raises(StoppedError):
        write(path, 0, range(4), stop=True)

    def stop(*_):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("grail.files.os.replace", stop)
        with pytest.raises(StoppedError):
            write(path, 3, [3])
    write(path, 3, [3])
    assert written(path) == [0, 1, 2, 3]


def test_only_the_main_process_writes(tmp_path):
    with training_log(tmp_path / "log", 3, False) as line:
        line({"n": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_steps_that_are_done_are_told_for_the_same_inputs_alone(tmp_path):
    told = []
    tell_reached(tmp_path / "none", "x", told.append)
    save(tmp_path / "there", step_=7)
    tell_reached(tmp_path / "there", "y", told.append)
    assert told == []
    tell_reached(tmp_path / "there", "x", told.append)
    assert told == ["steps 1 to 7"]


@pytest.mark.parametrize("name", ["weights", "optimizer", "direction", "best", "state.json"])
def test_one_flipped_bit_anywhere_and_the_training_starts_anew(name, tmp_path):
    model = nn.Linear(3, 2)
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c", parameters, optimizer, State(step=7), "x")
    assert load_checkpoint(tmp_path / "c", parameters, optimizer, "x").step == 7
    content = (file := tmp_path / "c" / name).read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        file.write_bytes(flipped)
        assert load_checkpoint(tmp_path / "c", parameters, optimizer, "x").step == 0, place


def test_free_entries_are_taken_from_whole_tensors_but_not_the_other_way_round(tmp_path):
    whole, given = parameters_of(), {"folder": tmp_path / "c", "inputs": "x"}
    step(whole, made := optimizer_of("adamw", whole), 0)
    state = at(direction=direction_of(whole))
    save_checkpoint(parameters=whole, optimizer=made, state=state, **given)
    frozen = {n: torch.rand(p.shape) < 0.5 for n, p in whole.items()}
    free = {n: nn.Parameter(p.detach()[~frozen[n]] * 0) for n, p in whole.items()}
    restored = optimizer_of("adamw", free)
    found = load_checkpoint(parameters=free, optimizer=restored, like=whole, frozen=frozen, **given)
    for n, p in free.items():
        assert torch.equal(p, whole[n][~frozen[n]])
        assert torch.equal(found.direction[n], state.direction[n][~frozen[n]])
        there = made.state[whole[n]]["exp_avg"]
        assert torch.equal(restored.state[p]["exp_avg"], there[~frozen[n]])
    save_checkpoint(parameters=free, optimizer=restored, state=state, **given)
    with pytest.raises(InputError, match=r"in parts .* Go on without it, or delete"):
        load_checkpoint(parameters=whole, optimizer=made, **given)
