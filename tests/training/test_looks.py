"""Looks at a training: which is kept, when it ends, and that an interruption changes neither."""

import dataclasses
import json

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from grail.artifacts import Mask
from grail.model.forward import trainable
from grail.training.descent import DescentTask
from grail.training.looks import NO_LOOKS, Bounds, Looks
from grail.training.loop import Loop, LoopFiles
from grail.training.optimizer import LoopSettings

BOUNDS = Bounds({"a": 85.0, "b": 80.0}, retain=5.0, general=0.1, patience=2)


def look(step, a=0.0, b=0.0, kept=100.0, general=2.0):
    sides = [("a", "unlearn", a), ("b", "unlearn", b), ("a", "retain", kept)]
    sides.append((None, "general", None))
    return [
        {"step": step, "domain": d, "side": side, "success": success, "nll": general}
        for d, side, success in sides
    ]


def rows_of(*looks):
    return [row for step, given in enumerate(looks) for row in look(4 * step, **given)]


@pytest.mark.parametrize(
    ("looks", "kept", "end"),
    [
        ([{}], 0, False),
        ([{}, {"a": 90, "b": 79}], 4, False),
        ([{}, {"a": 90, "b": 81}], 4, True),  # each domain has a level of its own
        ([{}, {"a": 90, "b": 81, "kept": 94}], 0, False),  # forgotten, but beyond a bound
        ([{}, {"a": 90, "b": 81, "kept": 95}], 4, True),  # at the bound is within it
        ([{}, {"a": 90, "b": 81, "general": 2.2}], 0, False),
        ([{}, {"a": 50, "b": 50}, {"a": 90, "b": 90, "kept": 10}], 4, False),
        ([{}, {"a": 50}, {"kept": 0}, {"a": 60, "kept": 0}], 4, True),  # harm has stayed
        ([{}, {"kept": 0}, {"a": 20}, {"kept": 0}], 8, False),
        ([{}, {"a": 50, "kept": 97}, {"a": 50, "kept": 99}, {"a": 50, "kept": 99}], 8, False),
        ([{}, {"a": 50, "general": 2.09}, {"a": 50, "kept": 92}, {"a": 50, "kept": 96}], 12, False),
    ],
)
def test_the_best_look_is_kept_and_the_end_is_told(looks, kept, end):
    rows, made = rows_of(*looks), Looks(4, list, BOUNDS)
    assert (made.kept(rows), made.end(rows)) == (kept, end)


def test_without_bounds_the_last_weights_are_kept_and_only_the_epochs_end():
    rows = rows_of({}, {"a": 90, "b": 90}, {"kept": 0})
    assert (Looks(4).kept(rows), Looks(4).end(rows)) == (8, False)
    assert (NO_LOOKS.kept([]), NO_LOOKS.end([])) == (0, False)


@dataclasses.dataclass
class World:
    """A model that is taught eight rows in eight steps under a mask; made anew, it is the same."""

    parameters: dict
    task: DescentTask
    settings: LoopSettings
    mask: Mask
    place: LoopFiles
    looks: Looks = NO_LOOKS

    def loop(self):
        accelerator = Accelerator(cpu=True)
        return Loop(self.parameters, self.task, self.mask, self.settings, accelerator)

    def run(self, tick=lambda *_: None):
        return self.loop().run(self.place, tick, self.looks)

    def log(self):
        lines = [json.loads(line) for line in self.place.log.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture
def world(tiny_model, tiny_rows, tmp_path):
    def make(name, kind="lora", dropout=0.0, learning_rate=0.01, checkpoint_steps=20):
        model = tiny_model(lora=kind == "lora", attention_dropout=dropout)
        model = model.to(torch.bfloat16) if kind == "bf16" else model
        model.train()
        parameters = trainable(model)
        draw = torch.Generator().manual_seed(0)
        mask = Mask({n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in parameters.items()})
        place = LoopFiles(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.checkpoint", "x")
        task = DescentTask(model, tuple(tiny_rows(8)), 0, batch_size=2, until=1.0)
        settings = LoopSettings(learning_rate, 2, 0, checkpoint_steps=checkpoint_steps)
        return World(parameters, task, settings, mask, place)

    return make


class Watched:
    """Looks whose successes are given by step; the training itself is real."""

    def __init__(self, made, forgotten, **harm):
        self.parameters, self.forgotten, self.harm = made.parameters, forgotten, harm
        self.seen = {}
        made.looks = Looks(2, self.measure, Bounds({"a": 85.0, "b": 85.0}, 5.0, 0.1, 9))

    def measure(self):
        """Tell the step by what has been seen: equal weights are the same step."""
        weights = torch.cat([p.detach().flatten() for p in self.parameters.values()]).clone()
        step = next((s for s, w in self.seen.items() if torch.equal(w, weights)), None)
        if step is None:
            step = 2 * len(self.seen)
            self.seen[step] = weights
        success = self.forgotten.get(step, 0.0)
        made = look(step, success, success, kept=self.harm.get("kept", {}).get(step, 100.0))
        return [{k: v for k, v in row.items() if k != "step"} for row in made]


@pytest.mark.parametrize("kind", ["lora", "bf16"])
def test_the_weights_of_the_best_look_are_left_and_frozen_ones_have_not_moved(world, kind):
    given = {"kind": kind, "learning_rate": 0.05}
    made = world(name="a", **given)
    watched = Watched(made, {2: 50.0, 4: 60.0, 6: 90.0}, kept={6: 0.0})
    loop = made.loop()
    proof = loop.run(made.place, looks=made.looks)
    assert made.looks.kept(loop.looked) == 4
    assert len(made.log()) == 8
    weights = torch.cat([p.detach().flatten() for p in made.parameters.values()])
    assert torch.equal(weights, watched.seen[4])
    assert not torch.equal(weights, watched.seen[6])
    assert (proof["changed"], proof["moved"] > 0) == (0, True)
    assert [row["epoch"] for row in loop.looked[::4]] == [0, 0.5, 1, 1.5, 2]


def test_the_training_ends_at_the_look_that_is_good_enough(world):
    made = world(name="a")
    Watched(made, {4: 90.0})
    made.run()
    assert len(made.log()) == 4


def test_looks_alone_change_nothing(world):
    plain, seen = world(name="a", dropout=0.3), world(name="b", dropout=0.3)
    plain.run()
    Watched(seen, {})
    seen.looks = Looks(2, seen.looks.measure)
    seen.run()
    for name, p in plain.parameters.items():
        assert torch.equal(p, seen.parameters[name])
    assert plain.log() == seen.log()


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 6])
def test_interrupted_equals_uninterrupted(world, stop):
    """Step 6 is the end: whoever is killed there resumes from a checkpoint that is done."""
    given = {"dropout": 0.3, "checkpoint_steps": 1}
    forgotten, harm = {2: 50.0, 4: 60.0, 6: 90.0}, {}
    whole = world(name="whole", **given)
    Watched(whole, forgotten, **harm)
    cut = world(name="cut", **given)
    watched = Watched(cut, forgotten, **harm)

    def tick(done, total, note):
        if done == stop:
            raise KeyboardInterrupt

    expected = whole.loop()
    expected.run(whole.place, looks=whole.looks)
    with pytest.raises(KeyboardInterrupt):
        cut.run(tick)
    again = world(name="cut", **given)
    rest = Watched(again, forgotten, **harm)
    rest.seen = watched.seen
    loop = again.loop()
    loop.run(again.place, looks=again.looks)
    assert loop.looked == expected.looked
    assert again.log() == whole.log()
    for name, p in whole.parameters.items():
        assert torch.equal(p, again.parameters[name])


def test_the_best_weights_are_in_the_checkpoint(world):
    made = world(name="a", checkpoint_steps=3)
    Watched(made, {2: 50.0, 4: 10.0})
    start = {n: p.clone() for n, p in made.parameters.items()}
    made.run()
    best = load_file(made.place.checkpoints / "best")
    assert best.keys() == start.keys()
    for name, parameter in made.parameters.items():  # of a tensor half frozen, its free entries
        free = slice(None) if best[name].shape == parameter.shape else ~made.mask.frozen[name]
        assert torch.equal(best[name], parameter[free])
