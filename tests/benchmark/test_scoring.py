"""Ways of scoring."""

import pytest
import torch
from races import scoring
from races.subjects import Subject, field_of

from grail.errors import InputError
from grail.importance.self_check import compare_scores
from grail.model.forward import trainable


@pytest.fixture(scope="module")
def field():
    return field_of(Subject("tiny", "float32", "cpu"), None, 3)


def test_vmap_finds_the_same_scores(field):
    own = scoring.scorer(field, trials=2)
    found = scoring.by_vmap(field, field.rows, own)
    assert compare_scores(found, own.score(field.rows)).worst < 1e-4


def test_the_passes_run_over_every_trial_and_leave_no_gradient(field):
    own = scoring.scorer(field, trials=2, batch_tokens=300)
    copies = [row for batch in scoring.copies_of(field.rows, own) for row in batch]
    assert sorted(row.key for row in copies) == sorted(2 * [row.key for row in field.rows])
    scoring.bare_pass(field, field.rows, own)
    scoring.padded_pass(field, field.rows, own)
    assert all(p.grad is None for p in trainable(field.model).values())


def test_a_setting_that_this_grail_lacks_is_named(field):
    with pytest.raises(InputError, match=r"does not know importance\.kernel: abacus"):
        scoring.scorer(field, kernel="abacus")


def test_other_scores_are_refused(field):
    own = scoring.scorer(field, trials=1)
    right, wrong = own.score(field.rows), own.score(field.rows[:1])
    ways = {"grail": lambda: right, "lean loop": lambda: right, "naive loop": lambda: right}
    assert scoring._agreement(ways, "float32") == {"grail": 0.0, "lean loop": 0.0}
    with pytest.raises(RuntimeError, match="same scores"):
        scoring._agreement(ways | {"grail": lambda: wrong}, "float32")
    assert scoring._agreement(ways | {"grail": lambda: wrong}, "bfloat16")["grail"] > 0.01


def test_the_bare_pass_makes_summed_gradients(field, monkeypatch):
    own, seen = scoring.scorer(field, trials=1), {}

    def keep(**_):
        seen.update({n: p.grad.clone() for n, p in trainable(field.model).items()})

    monkeypatch.setattr(field.model, "zero_grad", keep)
    scoring.bare_pass(field, field.rows[:1], own)
    monkeypatch.undo()
    field.model.zero_grad()
    row = field.rows[0]
    mean = own.score([row]).mean
    assert all(
        torch.allclose(seen[n] / len(row.answer), mean[n], rtol=1e-3, atol=1e-5) for n in mean
    )
