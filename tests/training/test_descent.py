"""The vanilla model: who is due, when it ends, and the loss, written out here once more."""

import dataclasses
import itertools
import json

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.model.forward import trainable
from grail.training.descent import REST, DescentTask
from grail.training.loop import Loop, LoopFiles
from grail.training.optimizer import LoopSettings
from grail.training.task import History


def blank(count=5, sides=("unlearn", "retain"), domains="ab", parts=("train", "val")):
    return tuple(
        Encoded(Sample(domain, side, part, i, "", ""), (3, 4), 1)
        for domain, side, part in itertools.product(domains, sides, parts)
        for i in range(count)
    )


def task_of(rows, model=None, seed=0, **given):
    return DescentTask(model or nn.Identity(), tuple(rows), 0, seed, **given)


def plan(task, epoch, seen):
    """The plan of a task that has seen this."""
    return dataclasses.replace(task, history=History(dict(seen))).plan(epoch)


ROWS = blank()
ALL = sorted(row.key for row in ROWS)


def planned(task, epoch, seen):
    return [row.key for step in plan(task, epoch, seen) for row in step]


def everywhere(accuracy, epoch=0, **other):
    return {key: (epoch, other.get(key, accuracy)) for key in ALL}


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
def test_each_due_row_once_in_full_steps(batch_size):
    steps = task_of(ROWS, batch_size=batch_size).plan(0)
    assert sorted(row.key for step in steps for row in step) == ALL
    assert all(len(step) == batch_size for step in steps[:-1])
    assert steps[-1]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = [
        tuple(planned(task_of(ROWS, seed=s), e, everywhere(0.5))) for s in (0, 1) for e in (0, 1)
    ]
    assert len(set(orders)) == 4
    assert orders[3] == tuple(planned(task_of(ROWS, seed=1), 1, everywhere(0.5)))


def test_a_row_that_was_all_right_rests_two_epochs_and_is_checked_again():
    task = task_of(ROWS, until=1.0)
    seen = everywhere(0.99, epoch=0) | {ALL[0]: (0, 1.0), ALL[1]: (1, 1.0)}
    due = {epoch: set(planned(task, epoch, seen)) for epoch in range(1, 6)}
    assert REST == 2
    assert [ALL[0] in due[epoch] for epoch in range(1, 6)] == [False, False, True, True, True]
    assert [ALL[1] in due[epoch] for epoch in range(2, 6)] == [False, False, True, True]
    for keys in due.values():
        assert set(ALL[2:]) <= keys


def test_training_ends_when_every_side_is_known():
    task = task_of(ROWS, until=0.9)
    assert plan(task, 1, everywhere(0.9)) == []
    assert plan(task, 1, {})
    for key in ALL:  # one row of five at 0.4: that side's mean is 0.8, all others are at 0.9
        assert plan(task, 1, everywhere(0.9) | {key: (0, 0.4)})
        unseen = {k: v for k, v in everywhere(1.0).items() if k != key}
        assert plan(task, 1, unseen)
    one = everywhere(1.0) | {ALL[0]: (0, 0.5)}  # 4.5 of 5 in its side
    assert plan(task, 1, one) == []


def test_there_is_always_a_row_due_while_something_is_unknown():
    for until in (0.5, 0.99, 1.0):
        task = task_of(ROWS, until=until)
        for key in ALL:
            assert key in planned(task, 1, everywhere(1.0) | {key: (0, 0.0)}) or until == 0.5


def tokens_nll(model, row):
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    return -torch.log_softmax(logits, -1)[range(len(row.answer)), list(row.answer)]


def test_the_loss_is_the_mean_over_rows_of_the_mean_over_tokens(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(5)
    task = task_of(rows, model)
    expected = sum(tokens_nll(model, row).mean() for row in rows) / 5
    weights = list(trainable(model).values())
    wanted = torch.autograd.grad(expected, weights)
    for pieces in ([rows], [rows[:1], rows[1:]]):
        parts = [task.run(piece, rows) for piece in pieces]
        loss = sum(part.loss for part in parts)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert float(sum(p.terms["nll"] for p in parts)) == pytest.approx(float(loss.detach()))
        for a, b in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert task.groups(rows) == [("", list(rows))]


class Watched:
    """A task that notes the lengths of its plans and the accuracies last seen."""

    def __init__(self, task):
        self.task, self.plans, self.last = task, [], {}
        self.groups, self.history = task.groups, task.history

    def plan(self, epoch):
        steps = self.task.plan(epoch)
        self.plans.append(len(steps))
        return steps

    def run(self, rows, step):
        outcome = self.task.run(rows, step)
        self.last |= outcome.accuracy
        return outcome


@torch.no_grad()
def accuracy(model, row):
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    return float((logits.argmax(-1) == torch.tensor(row.answer)).float().mean())


@pytest.fixture
def start(tiny_model, tiny_rows, tmp_path):
    """Begin, or go on with, a training of six rows: (model, watched task, place, run)."""
    sides = [("a", "unlearn"), ("a", "retain")]
    rows = [
        dataclasses.replace(row, sample=Sample(d, s, "train", i, "", ""))
        for i, (row, (d, s)) in enumerate(zip(tiny_rows(6), sides * 3, strict=True))
    ]

    def make(name="run"):
        model = tiny_model(lora=False)
        task = Watched(task_of(rows, model, batch_size=3, until=1.0))
        settings = LoopSettings(0.01, 200, 0, checkpoint_steps=5)
        place = LoopFiles(tmp_path / name, tmp_path / f"{name}.checkpoint", "x")
        loop = Loop(trainable(model), task, None, settings, Accelerator())
        return model, task, place, lambda tick: loop.run(place, tick)

    return make


def test_it_trains_until_all_is_known_and_no_longer(start):
    (model, task, _, run), ticks = start(), []
    assert run(lambda *given: ticks.append(given)) == {}
    assert len(task.plans) == 200
    epochs = task.plans.index(0)
    assert 3 < epochs < 199
    assert all(task.plans[:epochs])
    assert not any(task.plans[epochs:])  # what is known stays known: no epoch has steps again
    assert len(ticks) == sum(task.plans)
    assert task.last == {row.key: 1.0 for row in task.task.rows}
    assert sum(accuracy(model, row) for row in task.task.rows) / 6 > 0.8  # later steps may cost one
    assert "nll" in ticks[0][2]


class StoppedError(Exception):
    pass


def test_resumed_in_an_epoch_it_keeps_that_epochs_plan(start):
    """A row that came right in this epoch rests from the next on, also after an interruption."""
    whole, task, place, run = start("whole")
    run(lambda *_: None)
    steps = sum(task.plans)
    assert 1 in task.plans  # rows do rest
    for stop in range(2, steps + 1, 2):

        def tick(done, total, note, stop=stop):
            if done == stop:
                raise StoppedError

        *_, run = start(f"stopped{stop}")
        with pytest.raises(StoppedError):
            run(tick)
        model, _, again, run = start(f"stopped{stop}")
        run(lambda *_: None)
        for name, p in trainable(model).items():
            assert torch.equal(p, dict(whole.named_parameters())[name])
        assert _log(again.log) == _log(place.log)


def _log(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
