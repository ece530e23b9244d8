"""Grail's loop and the Trainer on the same steps."""

import pytest
from races import training
from races.outcome import Outcome
from races.plan import QUICK
from races.subjects import Subject, field_of
from races.trainer import Steps


def test_both_see_the_same_losses_and_start_alike_every_time():
    field = field_of(Subject("tiny", "float32", "cpu"), None, 8)
    settings = training.settings_of(2)
    start = field.start()
    ours = training.by_loop(field, settings)
    assert not all(p.equal(start[n]) for n, p in field.model.named_parameters() if n in start)
    field.put(start)
    theirs = training.by_trainer(field, settings)
    assert training.furthest(ours, theirs) < training.AGREES
    assert ours.nll["unlearn"][0] != ours.nll["unlearn"][1]
    assert len(ours.seconds) == len(theirs.seconds) == len(ours.nll["retain"]) - 1 == 1


def test_other_losses_are_refused(monkeypatch):
    field = field_of(Subject("tiny", "float32", "cpu"), None, 4)
    block = Steps([1.0], {"unlearn": [2.0], "retain": [1.0]})
    other = Steps([1.0], {"unlearn": [2.0], "retain": [1.0002]})
    monkeypatch.setattr(training, "by_loop", lambda *_: block)
    monkeypatch.setattr(training, "by_trainer", lambda *_: other)
    with pytest.raises(RuntimeError, match="same losses"):
        training._against_trainer(QUICK, field, Outcome("training"))
    monkeypatch.setattr(training, "by_trainer", lambda *_: block)
    training._against_trainer(QUICK, field, Outcome("training"))


def test_a_mask_freezes_the_share_it_is_asked_for():
    field = field_of(Subject("tiny", "float32", "cpu"), None, 2)
    counts = training.random_mask(field, 0.2).counts()
    assert counts["frozen"] / counts["entries"] == pytest.approx(0.2, abs=0.02)
