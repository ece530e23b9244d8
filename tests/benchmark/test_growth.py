"""How cost grows."""

from races import growth
from races.outcome import Outcome
from races.plan import QUICK
from races.subjects import Subject
from races.worker import Run

SUBJECT = Subject("tiny", "float32", "cpu")


def test_every_domain_and_length_is_worked_through():
    score = [growth.ready_to_score(SUBJECT, QUICK, 2, n)() for n in (1, 2)]
    assert score[1] == 2 * score[0] > 0
    train = [growth.ready_to_train(SUBJECT, QUICK, 2, 1, n)() for n in (1, 2)]
    assert train == score


def test_cost_is_told_against_the_smallest(monkeypatch):
    runs = {1: Run(2.0, 0.5, 10), 4: Run(12.0, 0.5, 30)}
    monkeypatch.setattr(growth, "alone", lambda _, n, device: runs[n])
    outcome = Outcome("growth")
    growth._grow(outcome, "scoring, rows", QUICK, growth.ready_to_score, {1: (1,), 4: (4,)})
    name = "growth: scoring, rows, 4 against 1"
    assert outcome.ratios == {f"{name}: seconds per token": 2.0, f"{name}: memory": 1.0}


def test_a_model_that_does_not_fit_is_left_out(monkeypatch):
    def full(*_):
        raise growth.torch.OutOfMemoryError

    monkeypatch.setattr(growth, "_race_model", full)
    outcome = Outcome("growth")
    growth._model(SUBJECT, QUICK, outcome)
    assert outcome.notes == ["growth: tiny, LoRA: does not fit into memory"]
