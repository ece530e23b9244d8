"""An objective is a weighted sum of terms: signs, weights and sides by independent computation."""

import pytest
import torch

from grail.answers import read_answers
from grail.config import Unlearning
from grail.errors import InputError
from grail.unlearning.losses import nll
from grail.unlearning.objectives import OBJECTIVES, make_terms


def settings(**given):
    return Unlearning(**({"max_token_nll": None} | given))


@pytest.fixture
def made():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(12, 20, generator=generator)).requires_grad_()
    targets = torch.randint(20, (12,), generator=generator)
    return logits, read_answers(logits, targets, torch.tensor([4, 2, 6]))


def test_the_gradient_of_ascent_is_minus_that_of_the_nll(made):
    logits, answers = made
    (term,) = make_terms(settings(objective="ascent"))
    assert term.side == "unlearn"
    up = torch.autograd.grad((term.weight * term.loss(answers)).sum(), logits, retain_graph=True)
    down = torch.autograd.grad(nll(answers).sum(), logits)
    assert torch.equal(up[0], -down[0])


def test_ascent_descent_is_ascent_plus_descent_on_the_retain_side(made):
    _, answers = made
    chosen = settings(unlearn_weight=0.4, retain_weight=3.0)
    ascent, descent = make_terms(chosen)
    (alone,) = make_terms(chosen.model_copy(update={"objective": "ascent"}))
    assert (ascent.side, ascent.weight) == (alone.side, alone.weight) == ("unlearn", -0.4)
    assert torch.equal(ascent.loss(answers), alone.loss(answers))
    assert (descent.side, descent.weight) == ("retain", 3.0)
    assert torch.equal(descent.loss(answers), nll(answers))


def test_the_bound_holds_for_ascent_only(made):
    _, answers = made
    bound = float(answers.nll.detach().min()) / 2
    ascent, descent = make_terms(settings(max_token_nll=bound))
    torch.testing.assert_close(ascent.loss(answers), torch.full((3,), bound))
    assert torch.equal(descent.loss(answers), nll(answers))


def test_every_objective_reads_the_unlearn_side_upwards():
    for name in OBJECTIVES:
        terms = make_terms(settings(objective=name))
        assert [t.weight < 0 for t in terms if t.side == "unlearn"] == [True]
        assert all(t.weight > 0 for t in terms if t.side != "unlearn")


def test_an_unknown_objective_is_an_input_error():
    with pytest.raises(InputError) as error:
        make_terms(settings(objective="ascent_decent"))
    assert "unlearning.objective" in str(error.value)
    assert "Did you mean 'ascent_descent'?" in str(error.value)
    with pytest.raises(InputError, match="Allowed: ascent, ascent_descent"):
        make_terms(settings(objective="xyzzy"))
